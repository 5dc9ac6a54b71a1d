//! Which rows of which tensors are looked at: from every layer some of its matrices, in turn, so that every layer and
//! every kind of matrix is met; one vector of a layer now and then; everything outside the layers. The choice is a function of
//! names and shapes alone.

use super::models::Model;
use crate::stats::random;

/// Seed of the choice.
const SEED: u64 = 20_261_124;

/// Matrices of every layer.
const PER_LAYER: usize = 2;

/// Layers that are looked at, at most; evenly spread.
const LAYERS: usize = 64;

/// Numbers of a tensor, about.
const NUMBERS: usize = 1 << 14;

/// Rows of a matrix, at least.
const FEWEST_ROWS: usize = 4;

/// Rows of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The tensor.
    pub tensor: String,
    /// Its layer.
    pub layer: Option<usize>,
    /// Whether it has rows and columns.
    pub is_matrix: bool,
    /// Numbers of the rows, in order.
    pub rows: Vec<usize>,
    /// Numbers in a row.
    pub row_len: usize,
    /// Shape of the whole tensor.
    pub whole: Vec<usize>,
}

impl Site {
    /// Numbers in all its rows.
    pub fn n_numbers(&self) -> usize {
        self.rows.len() * self.row_len
    }

    /// The shape of its rows: that of the tensor, with fewer of them.
    pub fn shape(&self) -> Vec<usize> {
        if self.is_matrix { vec![self.rows.len(), self.row_len] } else { vec![self.row_len] }
    }

    fn new(tensor: &str, layer: Option<usize>, whole: &[usize]) -> Option<Self> {
        let row_len = whole.last().copied().unwrap_or(1);
        let count: usize = whole.iter().product::<usize>().checked_div(row_len)?;
        let n_rows = NUMBERS.div_ceil(row_len).max(FEWEST_ROWS).min(count);
        let seed = random::stream(SEED, tensor);
        // One from each of as many equal parts: spread, in order and each once.
        let row = |part: usize| {
            let (start, end) = (part * count / n_rows, (part + 1) * count / n_rows);
            start + random::below(seed, 0, part, (end - start).max(1))
        };
        let rows: Vec<usize> = (0..n_rows).map(row).collect();
        let is_matrix = whole.len() > 1;
        Some(Self { tensor: tensor.to_owned(), layer, is_matrix, rows, row_len, whole: whole.to_vec() })
    }
}

/// The sites of models that are built like this one.
pub fn sites(model: &Model) -> Vec<Site> {
    let (checkpoint, architecture) = (&model.source.checkpoint, &model.source.architecture);
    let shape =
        |name: &str| checkpoint.tensor(name).filter(|tensor| tensor.dtype().is_some()).map(|found| &found.shape);
    let mut sites = Vec::new();
    for part in &architecture.outside {
        sites.extend(shape(&part.name).and_then(|shape| Site::new(&part.name, None, shape)));
    }
    let n_layers = architecture.n_layers;
    let n_looked_at = n_layers.min(LAYERS);
    for turn in 0..n_looked_at {
        let layer = turn * n_layers / n_looked_at;
        let names = architecture.layer(layer).iter().map(|part| architecture.layer_tensor(layer, &part.name));
        let here: Vec<(String, &Vec<usize>)> =
            names.filter_map(|name| shape(&name).map(|shape| (name, shape))).collect();
        let (matrices, vectors): (Vec<_>, Vec<_>) = here.into_iter().partition(|(_, shape)| shape.len() > 1);
        let mut add = |among: &[(String, &Vec<usize>)], place: usize| {
            let picked = among.get(place % among.len().max(1));
            sites.extend(picked.and_then(|(name, shape)| Site::new(name, Some(layer), shape)));
        };
        (0..PER_LAYER.min(matrices.len())).for_each(|one| add(&matrices, turn * PER_LAYER + one));
        if turn % 4 == 0 {
            add(&vectors, turn / 4);
        }
    }
    sites
}
