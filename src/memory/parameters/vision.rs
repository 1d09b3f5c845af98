//! The vision tower and the projector of vision-language models.

use super::{Place, Role, build::Build};
use crate::catalog::{Vision, VisionClass};
use serde_json::{Map, Value};

/// A config's whole numbers with their class's defaults.
struct Dims<'a>(&'a Map<String, Value>);

impl Dims<'_> {
    fn get(&self, key: &str, default: u64) -> Result<u64, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            // A pair of equal sides.
            Some(Value::Array(sides)) => sides
                .first()
                .and_then(Value::as_u64)
                .filter(|n| *n > 0 && *n < 1 << 20)
                .ok_or_else(|| format!("`vision_config.{key}` is not a size")),
            Some(value) => value
                .as_u64()
                .filter(|n| *n > 0 && *n < 1 << 20)
                .ok_or_else(|| format!("`vision_config.{key}` is not a size")),
        }
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(default)
    }
}

/// Everything of `vision`, for a language model of hidden size `text`.
pub(super) fn model(b: &mut Build<'_>, vision: &Vision, text: u64) -> Result<(), String> {
    let v = Dims(&vision.tower);
    match vision.class {
        VisionClass::Qwen2Vl => qwen2_vl(b, &v, text),
        VisionClass::Qwen25Vl => qwen2_5_vl(b, &v),
        VisionClass::Qwen3Vl | VisionClass::Qwen35 => qwen3_vl(b, &v, vision.class == VisionClass::Qwen3Vl),
        VisionClass::Gemma3 => {
            let width = siglip(b, &v)?;
            b.at(Place::Vision, "model.multi_modal_projector.");
            b.parameter("mm_input_projection_weight", &[width, text], Role::Other);
            b.norm("mm_soft_emb_norm", width, false);
            Ok(())
        }
        VisionClass::PaliGemma => {
            let width = siglip(b, &v)?;
            let out = v.get("projection_dim", Dims(&vision.outer).get("projection_dim", 2048)?)?;
            b.at(Place::Vision, "model.multi_modal_projector.");
            b.linear("linear", width, out, true, Role::Other);
            Ok(())
        }
        VisionClass::Llava | VisionClass::LlavaNext | VisionClass::LlavaOnevision => {
            llava(b, &v, vision, text)
        }
        VisionClass::Uncounted => Ok(()),
        VisionClass::Mllama => mllama(b, &v, text),
        VisionClass::Llama4 => llama4(b, &v, text),
        VisionClass::Mistral3 => {
            let width = pixtral(b, &v)?;
            let bias = Dims(&vision.outer).flag("multimodal_projector_bias", false);
            let merge = Dims(&vision.outer).get("spatial_merge_size", 2)?;
            b.at(Place::Vision, "model.multi_modal_projector.");
            b.norm("norm", width, false);
            b.linear("patch_merger.merging_layer", width * merge * merge, width, false, Role::Other);
            b.linear("linear_1", width, text, bias, Role::Other);
            b.linear("linear_2", text, text, bias, Role::Other);
            Ok(())
        }
        VisionClass::Idefics3 => {
            let width = idefics3(b, &v)?;
            let scale = Dims(&vision.outer).get("scale_factor", 2)?;
            b.at(Place::Vision, "model.connector.modality_projection.");
            b.linear("proj", width * scale * scale, text, false, Role::Other);
            Ok(())
        }
    }
}

/// Blocks of Qwen's towers, whose norms and MLPs differ.
fn qwen_attention(b: &mut Build<'_>, d: u64, norm_bias: bool) {
    b.norm("norm1", d, norm_bias);
    b.norm("norm2", d, norm_bias);
    b.linear("attn.qkv", d, 3 * d, true, Role::Attention);
    b.linear("attn.proj", d, d, true, Role::Attention);
}

fn qwen_patches(b: &mut Build<'_>, v: &Dims<'_>, d: u64, patch: u64, bias: bool) -> Result<(), String> {
    let patch = v.get("patch_size", patch)?;
    let time = v.get("temporal_patch_size", 2)?;
    let channels = v.get("in_channels", v.get("in_chans", 3)?)?;
    b.at(Place::Vision, "model.visual.");
    b.parameter("patch_embed.proj.weight", &[d, channels, time, patch, patch], Role::Other);
    if bias {
        b.parameter("patch_embed.proj.bias", &[d], Role::Other);
    }
    Ok(())
}

fn qwen2_vl(b: &mut Build<'_>, v: &Dims<'_>, text: u64) -> Result<(), String> {
    let d = v.get("embed_dim", 1280)?;
    let f = d * v.get("mlp_ratio", 4)?;
    let merged = d * v.get("spatial_merge_size", 2)?.pow(2);
    qwen_patches(b, v, d, 14, false)?;
    b.vision_layers("model.visual.blocks", v.get("depth", 32)?);
    qwen_attention(b, d, true);
    b.linear("mlp.fc1", d, f, true, Role::Mlp);
    b.linear("mlp.fc2", f, d, true, Role::Mlp);
    b.at(Place::Vision, "model.visual.merger.");
    b.norm("ln_q", d, true);
    b.linear("mlp.0", merged, merged, true, Role::Other);
    b.linear("mlp.2", merged, v.get("hidden_size", text)?, true, Role::Other);
    Ok(())
}

fn qwen2_5_vl(b: &mut Build<'_>, v: &Dims<'_>) -> Result<(), String> {
    let d = v.get("hidden_size", 3584)?;
    let f = v.get("intermediate_size", 3420)?;
    let merged = d * v.get("spatial_merge_size", 2)?.pow(2);
    qwen_patches(b, v, d, 14, false)?;
    b.vision_layers("model.visual.blocks", v.get("depth", 32)?);
    qwen_attention(b, d, false);
    b.linear("mlp.gate_proj", d, f, true, Role::Mlp);
    b.linear("mlp.up_proj", d, f, true, Role::Mlp);
    b.linear("mlp.down_proj", f, d, true, Role::Mlp);
    b.at(Place::Vision, "model.visual.merger.");
    b.norm("ln_q", d, false);
    b.linear("mlp.0", merged, merged, true, Role::Other);
    b.linear("mlp.2", merged, v.get("out_hidden_size", 3584)?, true, Role::Other);
    Ok(())
}

fn qwen3_vl(b: &mut Build<'_>, v: &Dims<'_>, deep_stack: bool) -> Result<(), String> {
    let d = v.get("hidden_size", 1152)?;
    let f = v.get("intermediate_size", 4304)?;
    let merged = d * v.get("spatial_merge_size", 2)?.pow(2);
    let out = v.get("out_hidden_size", 3584)?;
    // Three of the layers feed a merger of their own unless the config lists others.
    let deep = match v.0.get("deepstack_visual_indexes") {
        _ if !deep_stack => 0,
        Some(Value::Array(layers)) => layers.len() as u64,
        _ => 3,
    };
    qwen_patches(b, v, d, 16, true)?;
    b.positions("pos_embed", v.get("num_position_embeddings", 2304)?, d);
    b.vision_layers("model.visual.blocks", v.get("depth", 27)?);
    qwen_attention(b, d, true);
    b.linear("mlp.linear_fc1", d, f, true, Role::Mlp);
    b.linear("mlp.linear_fc2", f, d, true, Role::Mlp);
    b.at(Place::Vision, "model.visual.merger.");
    b.norm("norm", d, true);
    b.linear("linear_fc1", merged, merged, true, Role::Other);
    b.linear("linear_fc2", merged, out, true, Role::Other);
    b.vision_layers("model.visual.deepstack_merger_list", deep);
    b.norm("norm", merged, true);
    b.linear("linear_fc1", merged, merged, true, Role::Other);
    b.linear("linear_fc2", merged, out, true, Role::Other);
    Ok(())
}

fn clip_layer(b: &mut Build<'_>, d: u64, f: u64) {
    for name in ["k_proj", "v_proj", "q_proj", "out_proj"] {
        b.linear(&format!("self_attn.{name}"), d, d, true, Role::Attention);
    }
    b.norm("layer_norm1", d, true);
    b.linear("mlp.fc1", d, f, true, Role::Mlp);
    b.linear("mlp.fc2", f, d, true, Role::Mlp);
    b.norm("layer_norm2", d, true);
}

/// What SigLIP and Idefics3's tower share, under `prefix`; `hidden_size` and `patch_size` are the
/// defaults that differ. Returns the widths of the layers and of their MLPs.
fn siglip_trunk(
    b: &mut Build<'_>,
    v: &Dims<'_>,
    prefix: &str,
    hidden_size: u64,
    patch_size: u64,
) -> Result<(u64, u64), String> {
    let d = v.get("hidden_size", hidden_size)?;
    let f = v.get("intermediate_size", 3072)?;
    let patch = v.get("patch_size", patch_size)?;
    let side = v.get("image_size", 224)? / patch;
    b.at(Place::Vision, prefix);
    b.parameter(
        "embeddings.patch_embedding.weight",
        &[d, v.get("num_channels", 3)?, patch, patch],
        Role::Other,
    );
    b.parameter("embeddings.patch_embedding.bias", &[d], Role::Other);
    b.positions("embeddings.position_embedding", side * side, d);
    b.vision_layers(&format!("{prefix}encoder.layers"), v.get("num_hidden_layers", 12)?);
    clip_layer(b, d, f);
    b.at(Place::Vision, prefix);
    b.norm("post_layernorm", d, true);
    Ok((d, f))
}

/// SigLIP; returns its width.
fn siglip(b: &mut Build<'_>, v: &Dims<'_>) -> Result<u64, String> {
    let (d, f) = siglip_trunk(b, v, "model.vision_tower.", 768, 16)?;
    if v.flag("vision_use_head", true) {
        b.parameter("head.probe", &[1, 1, d], Role::Other);
        b.parameter("head.attention.in_proj_weight", &[3 * d, d], Role::Attention);
        b.parameter("head.attention.in_proj_bias", &[3 * d], Role::Attention);
        b.linear("head.attention.out_proj", d, d, true, Role::Attention);
        b.norm("head.layernorm", d, true);
        b.linear("head.mlp.fc1", d, f, true, Role::Mlp);
        b.linear("head.mlp.fc2", f, d, true, Role::Mlp);
    }
    Ok(d)
}

/// CLIP's vision tower; returns its width.
fn clip(b: &mut Build<'_>, v: &Dims<'_>) -> Result<u64, String> {
    let d = v.get("hidden_size", 1024)?;
    let f = v.get("intermediate_size", 4096)?;
    let patch = v.get("patch_size", 14)?;
    let side = v.get("image_size", 336)? / patch;
    b.at(Place::Vision, "model.vision_tower.");
    b.parameter("embeddings.class_embedding", &[d], Role::Other);
    b.parameter(
        "embeddings.patch_embedding.weight",
        &[d, v.get("num_channels", 3)?, patch, patch],
        Role::Other,
    );
    b.positions("embeddings.position_embedding", side * side + 1, d);
    b.norm("pre_layrnorm", d, true);
    b.vision_layers("model.vision_tower.encoder.layers", v.get("num_hidden_layers", 24)?);
    clip_layer(b, d, f);
    b.at(Place::Vision, "model.vision_tower.");
    b.norm("post_layernorm", d, true);
    Ok(d)
}

fn llava(b: &mut Build<'_>, v: &Dims<'_>, vision: &Vision, text: u64) -> Result<(), String> {
    let outer = Dims(&vision.outer);
    let next = vision.class != VisionClass::Llava;
    if next {
        b.at(Place::Vision, "model.");
        b.parameter("image_newline", &[text], Role::Other);
    }
    let named = v.0.get("model_type").and_then(Value::as_str);
    let default =
        if vision.class == VisionClass::LlavaOnevision { "siglip_vision_model" } else { "clip_vision_model" };
    let width = match named.unwrap_or(default) {
        "clip_vision_model" => clip(b, v)?,
        "siglip_vision_model" => siglip(b, v)?,
        "pixtral" => pixtral(b, v)?,
        other => return Err(format!("vision tower `{other}` is not supported")),
    };
    // Several layers' features may be stacked.
    let features = match vision.outer.get("vision_feature_layer") {
        Some(Value::Array(layers)) => layers.len().max(1) as u64,
        _ => 1,
    };
    let bias = outer.flag("multimodal_projector_bias", true);
    b.at(Place::Vision, "model.multi_modal_projector.");
    b.linear("linear_1", width * features, text, bias, Role::Other);
    b.linear("linear_2", text, text, bias, Role::Other);
    Ok(())
}

fn mllama(b: &mut Build<'_>, v: &Dims<'_>, text: u64) -> Result<(), String> {
    let d = v.get("hidden_size", 1280)?;
    let f = v.get("intermediate_size", 5120)?;
    let patch = v.get("patch_size", 14)?;
    let side = v.get("image_size", 448)? / patch;
    let tiles = v.get("max_num_tiles", 4)?;
    let patches = side * side + 1;
    // One row for each way to lay out the tiles, and one for padding.
    let ratios = match v.0.get("supported_aspect_ratios") {
        Some(Value::Array(ratios)) => ratios.len() as u64 + 1,
        _ => 9,
    };
    b.at(Place::Vision, "model.vision_model.");
    b.parameter("class_embedding", &[d], Role::Other);
    b.parameter("patch_embedding.weight", &[d, v.get("num_channels", 3)?, patch, patch], Role::Other);
    b.parameter("gated_positional_embedding.gate", &[1], Role::Other);
    b.parameter("gated_positional_embedding.embedding", &[patches, d], Role::Other);
    b.positions(
        "gated_positional_embedding.tile_embedding",
        ratios,
        tiles.saturating_mul(patches).saturating_mul(d),
    );
    for name in ["pre_tile_positional_embedding", "post_tile_positional_embedding"] {
        b.parameter(&format!("{name}.gate"), &[1], Role::Other);
        b.positions(&format!("{name}.embedding"), ratios, tiles * d);
    }
    b.norm("layernorm_pre", d, true);
    b.norm("layernorm_post", d, true);
    for (stack, key, layers) in
        [("transformer", "num_hidden_layers", 32), ("global_transformer", "num_global_layers", 8)]
    {
        b.vision_layers(&format!("model.vision_model.{stack}.layers"), v.get(key, layers)?);
        if stack == "global_transformer" {
            b.parameter("gate_attn", &[1], Role::Attention);
            b.parameter("gate_ffn", &[1], Role::Mlp);
        }
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            b.linear(&format!("self_attn.{name}"), d, d, false, Role::Attention);
        }
        b.linear("mlp.fc1", d, f, true, Role::Mlp);
        b.linear("mlp.fc2", f, d, true, Role::Mlp);
        b.norm("input_layernorm", d, true);
        b.norm("post_attention_layernorm", d, true);
    }
    b.at(Place::Vision, "model.");
    b.linear("multi_modal_projector", v.get("vision_output_dim", 7680)?, text, true, Role::Other);
    Ok(())
}

fn llama4(b: &mut Build<'_>, v: &Dims<'_>, text: u64) -> Result<(), String> {
    let d = v.get("hidden_size", 768)?;
    let f = v.get("intermediate_size", 5632)?;
    let patch = v.get("patch_size", 14)?;
    let side = v.get("image_size", 448)? / patch;
    let inner = v.get("projector_input_dim", 4096)?;
    let out = v.get("projector_output_dim", 4096)?;
    b.at(Place::Vision, "vision_model.");
    b.parameter("class_embedding", &[d], Role::Other);
    b.parameter("positional_embedding_vlm", &[side * side + 1, d], Role::Other);
    b.linear("patch_embedding.linear", v.get("num_channels", 3)? * patch * patch, d, false, Role::Other);
    b.norm("layernorm_pre", d, true);
    b.vision_layers("vision_model.model.layers", v.get("num_hidden_layers", 34)?);
    for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
        b.linear(&format!("self_attn.{name}"), d, d, true, Role::Attention);
    }
    b.linear("mlp.fc1", d, f, true, Role::Mlp);
    b.linear("mlp.fc2", f, d, true, Role::Mlp);
    b.norm("input_layernorm", d, true);
    b.norm("post_attention_layernorm", d, true);
    b.at(Place::Vision, "");
    b.norm("vision_model.layernorm_post", d, true);
    b.linear("vision_model.vision_adapter.mlp.fc1", f, inner, false, Role::Other);
    b.linear("vision_model.vision_adapter.mlp.fc2", out, out, false, Role::Other);
    let width = v.get("vision_output_dim", 7680)?;
    b.linear("multi_modal_projector.linear_1", width, text, false, Role::Other);
    Ok(())
}

/// Pixtral's tower; returns its width.
fn pixtral(b: &mut Build<'_>, v: &Dims<'_>) -> Result<u64, String> {
    let d = v.get("hidden_size", 1024)?;
    let f = v.get("intermediate_size", 4096)?;
    let patch = v.get("patch_size", 16)?;
    b.at(Place::Vision, "model.vision_tower.");
    b.parameter("patch_conv.weight", &[d, v.get("num_channels", 3)?, patch, patch], Role::Other);
    b.norm("ln_pre", d, false);
    b.vision_layers("model.vision_tower.transformer.layers", v.get("num_hidden_layers", 24)?);
    b.norm("attention_norm", d, false);
    for name in ["gate_proj", "up_proj"] {
        b.linear(&format!("feed_forward.{name}"), d, f, false, Role::Mlp);
    }
    b.linear("feed_forward.down_proj", f, d, false, Role::Mlp);
    for name in ["k_proj", "v_proj", "q_proj", "o_proj"] {
        b.linear(&format!("attention.{name}"), d, d, false, Role::Attention);
    }
    b.norm("ffn_norm", d, false);
    Ok(d)
}

/// The tower of Idefics3 and SmolVLM; returns its width.
fn idefics3(b: &mut Build<'_>, v: &Dims<'_>) -> Result<u64, String> {
    Ok(siglip_trunk(b, v, "model.vision_model.", 1152, 32)?.0)
}
