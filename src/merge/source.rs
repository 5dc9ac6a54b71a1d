//! A model as a merge sees it: its reference, its short key, its open checkpoint and perhaps an adapter.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use super::adapter::{Adapter, AdapterError};
use super::arch::Architecture;
use super::checkpoint::{Checkpoint, Tensor};
use crate::config::Dtype;
use crate::model::ModelRef;

/// One model of a merge. Merges that are computed together share the open files.
#[derive(Debug, Clone)]
pub struct Source {
    /// As the config names it.
    pub model: ModelRef,
    /// Short name: see [`keys`].
    pub key: String,
    /// Its files.
    pub checkpoint: Arc<Checkpoint>,
    /// What is added on reading.
    pub adapter: Option<Arc<Adapter>>,
    /// Its tensors and layers.
    pub architecture: Arc<Architecture>,
}

/// What a tensor's bytes come from: equal for sources that give the same bytes.
pub type Identity = (*const Checkpoint, Option<*const Adapter>);

impl Source {
    /// The number format of what [`Source::bytes`] gives, where a merge can compute with it.
    pub fn dtype(&self, tensor: &Tensor) -> Option<Dtype> {
        match &self.adapter {
            Some(adapter) => adapter.dtype(tensor),
            None => tensor.dtype(),
        }
    }

    /// What the bytes of a tensor come from.
    pub fn identity(&self, name: &str) -> Identity {
        let adapter = self.adapter.as_ref().filter(|adapter| adapter.changes(name));
        (Arc::as_ptr(&self.checkpoint), adapter.map(Arc::as_ptr))
    }

    /// Bytes of a tensor in its file.
    pub fn n_bytes(&self, name: &str) -> usize {
        self.checkpoint.tensor(name).map_or(0, |tensor| self.checkpoint.bytes(tensor).len())
    }

    /// Asks the operating system to have a tensor's bytes at hand soon.
    pub fn read_ahead(&self, name: &str) {
        if let Some(tensor) = self.checkpoint.tensor(name) {
            self.checkpoint.read_ahead(tensor);
        }
    }

    /// The bytes of a tensor, with the adapter applied.
    ///
    /// # Errors
    /// [`AdapterError`] where the low-rank product fails.
    pub fn bytes(&self, name: &str, tensor: &Tensor) -> Result<Cow<'_, [u8]>, AdapterError> {
        let bytes = self.checkpoint.bytes(tensor);
        match &self.adapter {
            Some(adapter) => adapter.apply(name, tensor, bytes),
            None => Ok(Cow::Borrowed(bytes)),
        }
    }
}

impl Source {
    /// Some rows of a tensor (vectors along its last axis), by number and one after the other, with the adapter applied;
    /// and their number format. None of a tensor that is not there or that no merge can compute with.
    ///
    /// # Errors
    /// [`AdapterError`] where the low-rank product fails.
    pub fn rows(&self, name: &str, rows: &[usize]) -> Result<Option<(Vec<u8>, Dtype)>, AdapterError> {
        let found =
            self.checkpoint.tensor(name).and_then(|tensor| Some((tensor, tensor.dtype()?, self.dtype(tensor)?)));
        let Some((tensor, own, dtype)) = found else { return Ok(None) };
        let row = tensor.shape.last().copied().unwrap_or(1) * own.size();
        let bytes = self.checkpoint.bytes(tensor);
        let mut picked = Vec::with_capacity(rows.len() * row);
        for at in rows {
            let Some(bytes) = bytes.get(at * row..(at + 1) * row) else { return Ok(None) };
            picked.extend_from_slice(bytes);
        }
        let picked = match &self.adapter {
            Some(adapter) => adapter.apply_to_rows(name, tensor, rows, picked)?,
            None => picked,
        };
        Ok(Some((picked, dtype)))
    }
}

/// Short names of models: the last component of the path, of the base and of the adapter, extended to the left only
/// while two models of the merge would have the same. Random masks are keyed by them, so that moving the folders
/// changes nothing.
pub fn keys(models: &[&ModelRef]) -> Vec<String> {
    let mut depths = vec![1; models.len()];
    loop {
        let keys: Vec<String> = models.iter().zip(&depths).map(|(model, depth)| key(model, *depth)).collect();
        let mut extended = false;
        for (index, depth) in depths.iter_mut().enumerate() {
            let collides = keys.iter().enumerate().any(|(other, key)| other != index && *key == keys[index]);
            if collides && key(models[index], *depth + 1) != keys[index] {
                *depth += 1;
                extended = true;
            }
        }
        if !extended {
            return keys;
        }
    }
}

/// The key of so many components; one step beyond the last component adds the revisions.
fn key(model: &ModelRef, depth: usize) -> String {
    let tail = |path: &str, revision: Option<&str>| {
        let components: Vec<_> =
            Path::new(path).components().map(|component| component.as_os_str().to_string_lossy()).collect();
        let tail = components[components.len().saturating_sub(depth)..].join("/");
        match revision {
            Some(revision) if depth > components.len() => format!("{tail}@{revision}"),
            _ => tail,
        }
    };
    let base = tail(&model.base.path, model.base.revision.as_deref());
    match &model.adapter {
        Some(adapter) => format!("{base}+{}", tail(&adapter.path, adapter.revision.as_deref())),
        None => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> Vec<String> {
        let models: Vec<ModelRef> = texts.iter().map(|text| text.parse().unwrap()).collect();
        keys(&models.iter().collect::<Vec<_>>())
    }

    #[test]
    fn keys_are_as_short_as_they_can_be() {
        assert_eq!(of(&["/data/math", "hub/code/"]), ["math", "code"]);
        assert_eq!(of(&["/x/a/m", "/x/b/m", "/x/c"]), ["a/m", "b/m", "c"]);
        assert_eq!(of(&["o/m@v1", "o/m@v2"]), ["o/m@v1", "o/m@v2"]);
        assert_eq!(of(&["b+x/lora", "b+y/lora"]), ["b+x/lora", "b+y/lora"]);
        assert_eq!(of(&["m", "m"]), ["m", "m"]);
    }
}
