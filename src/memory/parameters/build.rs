//! A small builder with PyTorch's vocabulary: linear, norm, embedding, parameter.

use super::{Linear, LinearKind, Place, Role, Tensor};
use crate::catalog::Architecture;

/// Collects the tensors of one model.
pub(super) struct Build<'a> {
    /// The model.
    pub(super) a: &'a Architecture,
    tensors: Vec<Tensor>,
    prefix: String,
    place: Place,
    copies: u64,
}

impl<'a> Build<'a> {
    pub(super) fn new(a: &'a Architecture) -> Build<'a> {
        Build { a, tensors: Vec::new(), prefix: String::new(), place: Place::Other, copies: 1 }
    }

    pub(super) fn finish(self) -> Vec<Tensor> {
        self.tensors.into_iter().filter(|t| t.copies > 0).collect()
    }

    /// What follows is outside the layers, in modules under `prefix`.
    pub(super) fn at(&mut self, place: Place, prefix: &str) {
        self.place = place;
        self.copies = 1;
        self.prefix = prefix.to_owned();
    }

    /// What follows is in `count` layers from `first` on; `stack` is the list's name: `model.layers`.
    pub(super) fn layers(&mut self, stack: &str, first: u64, count: u64) {
        self.place = Place::Layers { first, count };
        self.copies = count;
        self.prefix = format!("{stack}.*.");
    }

    /// The same for the encoder of an encoder-decoder.
    pub(super) fn encoder_layers(&mut self, stack: &str, first: u64, count: u64) {
        self.place = Place::Encoder { first, count };
        self.copies = count;
        self.prefix = format!("{stack}.*.");
    }

    /// What follows is in `count` modules of a list in the vision part.
    pub(super) fn vision_layers(&mut self, stack: &str, count: u64) {
        self.place = Place::Vision;
        self.copies = count;
        self.prefix = format!("{stack}.*.");
    }

    fn push(&mut self, name: &str, shape: &[u64], role: Role, linear: Option<Linear>, times: u64) {
        self.tensors.push(Tensor {
            name: format!("{}{name}", self.prefix),
            shape: shape.to_vec(),
            copies: self.copies.saturating_mul(times),
            place: self.place,
            role,
            linear,
            tied: false,
        });
    }

    /// A parameter of any shape.
    pub(super) fn parameter(&mut self, name: &str, shape: &[u64], role: Role) {
        self.push(name, shape, role, None, 1);
    }

    /// `times` parameters of one shape in each layer.
    pub(super) fn parameters(&mut self, name: &str, shape: &[u64], role: Role, times: u64) {
        self.push(name, shape, role, None, times);
    }

    /// `nn.Linear(input, output, bias)`.
    pub(super) fn linear(&mut self, name: &str, input: u64, output: u64, bias: bool, role: Role) {
        let linear = Linear { input, output, kind: LinearKind::Linear };
        self.push(&format!("{name}.weight"), &[output, input], role, Some(linear), 1);
        if bias {
            self.push(&format!("{name}.bias"), &[output], role, None, 1);
        }
    }

    /// transformers' `Conv1D(output, input)`, which always has a bias.
    pub(super) fn conv1d(&mut self, name: &str, input: u64, output: u64, role: Role) {
        let linear = Linear { input, output, kind: LinearKind::Conv1d };
        self.push(&format!("{name}.weight"), &[input, output], role, Some(linear), 1);
        self.push(&format!("{name}.bias"), &[output], role, None, 1);
    }

    /// A norm over `width`, with a shift when `bias`.
    pub(super) fn norm(&mut self, name: &str, width: u64, bias: bool) {
        self.push(&format!("{name}.weight"), &[width], Role::Norm, None, 1);
        if bias {
            self.push(&format!("{name}.bias"), &[width], Role::Norm, None, 1);
        }
    }

    /// The token embedding.
    pub(super) fn embedding(&mut self, name: &str, rows: u64, width: u64) {
        self.push(&format!("{name}.weight"), &[rows, width], Role::InputEmbedding, None, 1);
    }

    /// Learned positions.
    pub(super) fn positions(&mut self, name: &str, rows: u64, width: u64) {
        self.push(&format!("{name}.weight"), &[rows, width], Role::PositionEmbedding, None, 1);
    }

    /// The output head under `name`: `vocab_size` by `input`, one with the input embedding where
    /// the model ties them.
    pub(super) fn head(&mut self, name: &str, input: u64, bias: bool) {
        let (output, tied) = (self.a.vocab_size, self.a.tied_embeddings);
        let linear = Linear { input, output, kind: LinearKind::Linear };
        self.push(&format!("{name}.weight"), &[output, input], Role::Head, Some(linear), 1);
        self.last_is_tied(tied);
        if bias {
            self.push(&format!("{name}.bias"), &[output], Role::Head, None, 1);
        }
    }

    /// The tensor added last is another one's second name, or not.
    pub(super) fn last_is_tied(&mut self, tied: bool) {
        if let Some(tensor) = self.tensors.last_mut() {
            tensor.tied = tied;
        }
    }
}
