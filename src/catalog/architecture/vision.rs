//! Vision-language configs: which part is the language model, and what the vision part is.

use serde_json::{Map, Value};

/// The class of a vision-language model: it decides how tower and projector are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the `model_type` of a Hugging Face config.json")]
pub enum VisionClass {
    Qwen2Vl,
    Qwen25Vl,
    Qwen3Vl,
    #[doc(alias = "qwen3_5_moe")]
    Qwen35,
    Gemma3,
    PaliGemma,
    Llava,
    LlavaNext,
    LlavaOnevision,
    Llama4,
    Mllama,
    Mistral3,
    /// Idefics3 and SmolVLM.
    Idefics3,
    /// A class whose towers are not counted, unless the config says how many parameters they have.
    Uncounted,
}

/// The vision part of a vision-language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Vision {
    /// The class.
    pub class: VisionClass,
    /// Its `vision_config`.
    pub tower: Map<String, Value>,
    /// The rest of the config, for the projector.
    pub outer: Map<String, Value>,
}

/// The class, and the language model's `model_type` where `text_config` names none.
fn class(model_type: &str) -> Option<(VisionClass, &'static str)> {
    Some(match model_type {
        "qwen2_vl" => (VisionClass::Qwen2Vl, "qwen2_vl_text"),
        "qwen2_5_vl" => (VisionClass::Qwen25Vl, "qwen2_5_vl_text"),
        "qwen3_vl" => (VisionClass::Qwen3Vl, "qwen3_vl_text"),
        "qwen3_vl_moe" => (VisionClass::Qwen3Vl, "qwen3_vl_moe_text"),
        "qwen3_5" => (VisionClass::Qwen35, "qwen3_5_text"),
        "qwen3_5_moe" => (VisionClass::Qwen35, "qwen3_5_moe_text"),
        "gemma3" => (VisionClass::Gemma3, "gemma3_text"),
        "paligemma" => (VisionClass::PaliGemma, "gemma"),
        "llava" => (VisionClass::Llava, "llama"),
        "llava_next" => (VisionClass::LlavaNext, "llama"),
        "llava_onevision" => (VisionClass::LlavaOnevision, "qwen2"),
        "llama4" => (VisionClass::Llama4, "llama4_text"),
        "mllama" => (VisionClass::Mllama, "mllama_text_model"),
        "mistral3" => (VisionClass::Mistral3, "mistral"),
        "idefics3" | "smolvlm" => (VisionClass::Idefics3, "llama"),
        "gemma3n" => (VisionClass::Uncounted, "gemma3n_text"),
        "gemma4" => (VisionClass::Uncounted, "gemma4_text"),
        "gemma4_unified" => (VisionClass::Uncounted, "gemma4_unified_text"),
        "internvl" => (VisionClass::Uncounted, "qwen2"),
        "lfm2_vl" => (VisionClass::Uncounted, "lfm2"),
        "glm4v" | "glm46v" => (VisionClass::Uncounted, "glm4v_text"),
        "glm4v_moe" => (VisionClass::Uncounted, "glm4v_moe_text"),
        "voxtral" => (VisionClass::Uncounted, "llama"),
        // Ernie 4.5's layers (transformers 5.23, `modular_paddleocr_vl.py`).
        "paddleocr_vl" => (VisionClass::Uncounted, "ernie4_5"),
        _ => return None,
    })
}

/// The language model's config and the vision part, when `config` is a vision-language model's.
pub(super) fn split(config: &Map<String, Value>) -> Option<(Map<String, Value>, Vision)> {
    let model_type = config.get("model_type").or_else(|| config.get("architecture"))?.as_str()?;
    let (class, language) = class(model_type)?;
    let object = |key: &str| config.get(key).and_then(Value::as_object).cloned();
    let mut outer = config.clone();
    let tower = object("vision_config").unwrap_or_default();
    outer.remove("vision_config");
    // Older Qwen2-VL and Qwen2.5-VL configs have the language model's fields at the top.
    let (mut text, nested) = match object("text_config") {
        Some(text) => (text, true),
        None => (outer.clone(), false),
    };
    outer.remove("text_config");
    if !nested || text.get("model_type").and_then(Value::as_str).is_none_or(str::is_empty) {
        text.insert("model_type".into(), language.into());
    }
    // Whether the head is tied is the whole model's affair. Configs written before transformers 5
    // say it for the language model only.
    let says = |map: &Map<String, Value>| map.get("tie_word_embeddings").and_then(Value::as_bool);
    let tied = match (says(&outer), says(&text)) {
        (None, None) => {
            matches!(class, VisionClass::Gemma3 | VisionClass::PaliGemma)
                || matches!(language, "gemma3n_text" | "gemma4_text" | "gemma4_unified_text" | "lfm2")
        }
        (a, b) => a == Some(true) || b == Some(true),
    };
    text.insert("tie_word_embeddings".into(), tied.into());
    Some((text, Vision { class, tower, outer }))
}
