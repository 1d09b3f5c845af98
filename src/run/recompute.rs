//! The modules of a layer that Megatron can compute again (`recompute_modules`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One of them, under Megatron core's own name (`TransformerConfig.recompute_modules`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecomputedModule {
    /// Attention proper, between its projections.
    CoreAttn,
    /// The projections of latent attention from its ranks to heads.
    MlaUpProj,
    /// Norms that no projection has taken in.
    Layernorm,
    /// The activation function of routed experts.
    MoeAct,
    /// Dense MLPs.
    Mlp,
    /// Router and experts, shared ones among them.
    Moe,
    /// Shared experts.
    SharedExperts,
}

/// Several of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<RecomputedModule>", into = "Vec<RecomputedModule>")]
pub struct RecomputedModules(u8);

impl RecomputedModules {
    const ALL: [RecomputedModule; 7] = [
        RecomputedModule::CoreAttn,
        RecomputedModule::MlaUpProj,
        RecomputedModule::Layernorm,
        RecomputedModule::MoeAct,
        RecomputedModule::Mlp,
        RecomputedModule::Moe,
        RecomputedModule::SharedExperts,
    ];

    /// Is `module` one of them?
    pub fn has(self, module: RecomputedModule) -> bool {
        self.0 & 1 << module as u8 != 0
    }
}

impl From<Vec<RecomputedModule>> for RecomputedModules {
    fn from(list: Vec<RecomputedModule>) -> RecomputedModules {
        RecomputedModules(list.into_iter().fold(0, |bits, module| bits | 1 << module as u8))
    }
}

impl From<RecomputedModules> for Vec<RecomputedModule> {
    fn from(modules: RecomputedModules) -> Vec<RecomputedModule> {
        RecomputedModules::ALL.into_iter().filter(|module| modules.has(*module)).collect()
    }
}

impl JsonSchema for RecomputedModules {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RecomputedModules".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Vec::<RecomputedModule>::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}
