//! LoRA, QLoRA and quantised base weights. Facts: loaders/adapter.py, loaders/model.py
//! `_set_quantization_config`, `_prepare_model_for_quantization`.

use super::RELEASE;
use crate::document::Value;
use crate::document::is_placeholder_text;
use crate::framework::Lowering;
use crate::framework::baseline::count;
use crate::framework::lowering::here;
use crate::framework::training_arguments::{flag, names, text};
use crate::run::{Dtype, Lora, LoraTargets, Method, Quantization, Setting, TrainingRun};

/// PEFT stores adapters in fp32 unless told not to.
const PEFT: &str = "peft 0.19";

pub(super) fn lower(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    let Some(adapter) = cx.written("adapter", text) else {
        quantized_as_is(cx, run);
        return;
    };
    match adapter.value.as_str() {
        "lora" | "qlora" => {}
        "none" | "None" => return,
        other => {
            let location = adapter.origin.location();
            let why = if is_placeholder_text(other) {
                format!("`{other}` is filled in elsewhere")
            } else {
                format!("`{other}` adapters are not modelled; lora and qlora are")
            };
            cx.missing("adapter", why, location);
        }
    }
    run.quantization = quantization(cx, &adapter);
    let quantised = run.quantization.value != Quantization::None;
    run.method = adapter.map(|_| if quantised { Method::Qlora } else { Method::Lora });
    // Norms, embeddings and head go to fp32 for a moment and back (`should_convert`).
    run.prepare_kbit = Setting::default_of(false, RELEASE);
    run.quantized_experts = cx.or_default("quantize_moe_experts", flag, false, RELEASE);
    run.fused_experts = fused_experts(cx);
    let adapters = lora(cx, run);
    // A gradient and its Adam states have the dtype of the parameter: the adapters', not the
    // frozen base's.
    run.gradients = adapters.dtype.clone();
    run.optimizer_state = adapters.dtype.clone();
    run.lora = Some(adapters);
}

/// integrations/kernels/args.py: ScatterMoE and SonicMoE, by flag or by `expert_backend`.
fn fused_experts(cx: &Lowering<'_>) -> Setting<bool> {
    let backend = cx.written("expert_backend", text);
    let named = backend.filter(|name| matches!(name.value.as_str(), "scattermoe" | "sonicmoe"));
    let flags = ["use_scattermoe", "use_sonicmoe"].into_iter().find_map(|key| cx.written(key, flag));
    named.map(|name| name.map(|_| true)).or(flags).unwrap_or_else(|| Setting::default_of(false, RELEASE))
}

fn lora(cx: &mut Lowering<'_>, run: &TrainingRun) -> Lora {
    let rank = cx.written("lora_r", count).unwrap_or_else(|| {
        let resumed = cx.root.get("lora_model_dir").is_some_and(|v| v.as_str().is_some());
        let why = if resumed {
            "it stands in the adapter that `lora_model_dir` names; write `lora_r` to have it counted"
        } else {
            "an adapter needs `lora_r`"
        };
        cx.missing("lora_r", why, None);
        Setting::assumed(8, "PEFT's default")
    });
    let autocast = cx.or_default("peft_autocast_adapter_dtype", flag, true, PEFT);
    let weights = run.weights.value;
    let dtype = autocast.map(|on| if on { Dtype::Fp32 } else { weights });
    let dtype = match cx.written("lora_fp32_gradients", flag).filter(|on| on.value) {
        Some(on) => on.map(|_| Dtype::Fp32),
        None => dtype,
    };
    Lora {
        rank,
        targets: targets(cx),
        dropout: cx.or_default("lora_dropout", |v| v.to_float(), 0.0, RELEASE),
        dtype,
        dora: cx.or_default("peft_use_dora", flag, false, RELEASE),
        modules_to_save: cx.or_default("lora_modules_to_save", names, Vec::new(), RELEASE),
    }
}

/// `lora_target_parameters` names parameters that are no module's weight: stacked experts.
fn targets(cx: &mut Lowering<'_>) -> Setting<LoraTargets> {
    let modules = module_targets(cx);
    match (cx.written("lora_target_parameters", names), modules.value.clone()) {
        (Some(parameters), LoraTargets::Modules(mut list)) if !parameters.value.is_empty() => {
            list.extend(parameters.value);
            Setting { value: LoraTargets::Modules(list), origin: parameters.origin }
        }
        _ => modules,
    }
}

fn module_targets(cx: &mut Lowering<'_>) -> Setting<LoraTargets> {
    if let Some(on) = cx.written("lora_target_linear", flag).filter(|on| on.value) {
        return on.map(|_| LoraTargets::LinearModules);
    }
    let Some(value) = cx.root.get("lora_target_modules").filter(|v| !v.is_null()) else {
        // PEFT's choice for llama, mistral, qwen2, gemma and their like.
        return Setting::default_of(LoraTargets::Modules(vec!["q_proj".into(), "v_proj".into()]), PEFT);
    };
    let read = |value: Value<'_>| -> Option<LoraTargets> {
        match value.as_str() {
            Some("all-linear") => Some(LoraTargets::AllLinear),
            Some(pattern) => from_pattern(pattern),
            None => {
                let list: Vec<String> =
                    value.items().filter_map(|item| item.as_str().map(str::to_owned)).collect();
                (!list.is_empty()).then_some(LoraTargets::Modules(list))
            }
        }
    };
    match read(value) {
        Some(targets) => Setting::written(targets, here(value)),
        None => {
            cx.missing(
                "lora_target_modules",
                "the pattern names no module that is known; a list of names does",
                Some(here(value)),
            );
            Setting::assumed(LoraTargets::AllLinear, "the pattern was not understood")
        }
    }
}

/// Module names in a regular expression such as `…layers.[\d]+.(mlp|self_attn).(up|down)_proj`.
fn from_pattern(pattern: &str) -> Option<LoraTargets> {
    const KNOWN: [&str; 12] = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "in_proj",
        "out_proj",
        "qkv_proj",
        "gate_up_proj",
        "kv_proj",
    ];
    if !pattern.contains(['(', '[', '*', '\\', '|', '^', '$']) {
        return Some(LoraTargets::Modules(vec![pattern.to_owned()]));
    }
    let alternatives: Vec<&str> = pattern
        .split("_proj")
        .next()
        .and_then(|head| head.rsplit_once('('))
        .map_or_else(Vec::new, |(_, list)| list.trim_end_matches(')').split('|').collect());
    let named = |name: &&&str| {
        let stem = name.trim_end_matches("_proj");
        pattern.contains(**name) && pattern.split(**name).next().is_none_or(|head| !head.ends_with('_'))
            || alternatives.contains(&stem)
    };
    let list: Vec<String> = KNOWN.iter().filter(named).map(|name| (*name).to_owned()).collect();
    (!list.is_empty()).then_some(LoraTargets::Modules(list))
}

/// 4 bits only with qlora, 8 bits only with lora; weights that are quantised on disk stay so.
fn quantization(cx: &Lowering<'_>, adapter: &Setting<String>) -> Setting<Quantization> {
    let on = |key: &str| cx.written(key, flag).filter(|on| on.value);
    if let Some(on_disk) = on_disk(cx) {
        return on_disk;
    }
    let four = on("load_in_4bit").filter(|_| adapter.value == "qlora");
    if let Some(four) = four {
        let double = cx.root.path("bnb_config_kwargs.bnb_4bit_use_double_quant").and_then(flag);
        let kind = if double == Some(false) { Quantization::Nf4 } else { Quantization::Nf4Double };
        return four.map(|_| kind);
    }
    if let Some(eight) = on("load_in_8bit").filter(|_| adapter.value == "lora") {
        return eight.map(|_| Quantization::Int8);
    }
    fp8(cx).unwrap_or_else(|| Setting::default_of(Quantization::None, RELEASE))
}

fn on_disk(cx: &Lowering<'_>) -> Option<Setting<Quantization>> {
    if let Some(on) = cx.written("gptq", flag).filter(|on| on.value) {
        return Some(on.map(|_| Quantization::Int4));
    }
    cx.written("base_model", |v| {
        v.as_str()?
            .to_ascii_lowercase()
            .trim_end_matches('/')
            .ends_with("-bnb-4bit")
            .then_some(Quantization::Nf4)
    })
}

fn fp8(cx: &Lowering<'_>) -> Option<Setting<Quantization>> {
    cx.written("model_quantization_config", |v| {
        (v.as_str()? == "FineGrainedFP8Config").then_some(Quantization::Fp8)
    })
}

/// Quantised weights without an adapter: nothing to train them with.
fn quantized_as_is(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    if let Some(kind) = on_disk(cx) {
        let location = kind.origin.location();
        cx.missing("adapter", "4-bit weights cannot be trained without one", location);
        run.quantization = kind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_out_of_patterns() {
        let names = |pattern| match from_pattern(pattern) {
            Some(LoraTargets::Modules(list)) => list,
            _ => Vec::new(),
        };
        assert_eq!(
            names(r"model.language_model.layers.[\d]+.(mlp|self_attn).(up|down|gate|q|k|v|o)_proj"),
            ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        );
        assert_eq!(names("q_proj|v_proj"), ["q_proj", "v_proj"]);
        assert_eq!(names("q_proj"), ["q_proj"]);
        assert_eq!(names(r"^vision\..*"), [""; 0]);
    }
}
