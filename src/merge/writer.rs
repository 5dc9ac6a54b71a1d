//! The weights of an output: one safetensors file, or shards and an index, laid out before the first tensor is computed
//! and then written piece by piece at fixed offsets, in any order and from any thread.
//!
//! A tensor goes to the shard that mergekit would put it in: a shard ends before the tensor that would overflow it, and a
//! larger tensor gets a shard of its own. Headers are padded so that data begins on a page.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate};
use safetensors::Dtype as StoredDtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value, json};

use super::checkpoint::{INDEX, SINGLE};
use super::recipe::Recipe;
use super::staging::{OutputError, Staging};
use crate::config::Dtype;

/// Data begins at a multiple of this.
const PAGE: usize = 4096;

/// The open files of an output.
#[derive(Debug)]
pub struct Writer {
    shards: Vec<Shard>,
    /// By recipe.
    places: Vec<Place>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    shard: usize,
    offset: u64,
}

/// The format of a dtype in a file.
pub fn stored(dtype: Dtype) -> StoredDtype {
    match dtype {
        Dtype::Bf16 => StoredDtype::BF16,
        Dtype::F16 => StoredDtype::F16,
        Dtype::F32 => StoredDtype::F32,
        Dtype::F64 => StoredDtype::F64,
    }
}

impl Recipe {
    /// Elements of the output tensor.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the output tensor.
    pub fn n_bytes(&self) -> u64 {
        (self.n_elements() * self.out.size()) as u64
    }
}

/// The recipes of every shard, by number.
pub fn shards(recipes: &[Recipe], shard_size: u64) -> Vec<Vec<usize>> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0;
    for (index, recipe) in recipes.iter().enumerate() {
        if filled + recipe.n_bytes() > shard_size && filled > 0 {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += recipe.n_bytes();
        if let Some(shard) = shards.last_mut() {
            shard.push(index);
        }
    }
    shards
}

fn shard_name(shard: usize, n_shards: usize) -> String {
    match n_shards {
        1 => SINGLE.to_owned(),
        _ => format!("model-{:05}-of-{n_shards:05}.safetensors", shard + 1),
    }
}

impl Writer {
    /// Makes every file at its full size, so that a full disk shows before the work starts.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn create(staging: &Staging, recipes: &[Recipe], shard_size: u64) -> Result<Self, OutputError> {
        let layout = shards(recipes, shard_size);
        let mut places = vec![Place { shard: 0, offset: 0 }; recipes.len()];
        let mut files = Vec::with_capacity(layout.len());
        for (number, members) in layout.iter().enumerate() {
            let path = staging.folder().join(shard_name(number, layout.len()));
            let file = create_shard(number, members, recipes, &path, &mut places)?;
            files.push(Shard { path, file });
        }
        if layout.len() > 1 {
            staging.write(INDEX, &index(&layout, recipes)?)?;
        }
        Ok(Self { shards: files, places })
    }

    /// Writes bytes of the tensor of a recipe, from byte `offset` of the tensor.
    ///
    /// # Errors
    /// [`OutputError::Write`].
    pub fn write(&self, recipe: usize, offset: u64, bytes: &[u8]) -> Result<(), OutputError> {
        let place = self.places[recipe];
        let Shard { path, file } = &self.shards[place.shard];
        file.write_all_at(bytes, place.offset + offset).map_err(OutputError::write(path))
    }

    /// Waits until everything is on disk.
    ///
    /// # Errors
    /// [`OutputError::Write`].
    pub fn finish(self) -> Result<(), OutputError> {
        self.shards.iter().try_for_each(|shard| shard.file.sync_data().map_err(OutputError::write(&shard.path)))
    }
}

fn create_shard(
    number: usize,
    members: &[usize],
    recipes: &[Recipe],
    path: &std::path::Path,
    places: &mut [Place],
) -> Result<File, OutputError> {
    // Wider formats first: no tensor then starts at an offset that its own format does not divide.
    let mut ordered = members.to_vec();
    ordered.sort_by_key(|index| std::cmp::Reverse(recipes[*index].out.size()));
    let mut infos = Vec::with_capacity(ordered.len());
    let mut end = 0;
    for index in &ordered {
        let recipe = &recipes[*index];
        let begin = end;
        end += recipe.n_bytes() as usize;
        let info = TensorInfo { dtype: stored(recipe.out), shape: recipe.shape.clone(), data_offsets: (begin, end) };
        places[*index] = Place { shard: number, offset: begin as u64 };
        infos.push((recipe.name.clone(), info));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata =
        Metadata::new(Some(metadata), infos).map_err(|source| OutputError::Header { file: path.to_owned(), source })?;
    let mut header =
        serde_json::to_vec(&metadata).map_err(|source| OutputError::Json { file: path.to_owned(), source })?;
    let data_start = (8 + header.len()).next_multiple_of(PAGE);
    header.resize(data_start - 8, b' ');
    for index in ordered {
        places[index].offset += data_start as u64;
    }
    let create = || {
        let file = File::create(path)?;
        let size = (data_start + end) as u64;
        match fallocate(&file, FallocateFlags::empty(), 0, size) {
            // Some file systems cannot reserve.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(size)?,
            reserved => reserved?,
        }
        file.write_all_at(&(header.len() as u64).to_le_bytes(), 0)?;
        file.write_all_at(&header, 8)?;
        Ok(file)
    };
    create().map_err(OutputError::write(path))
}

fn index(layout: &[Vec<usize>], recipes: &[Recipe]) -> Result<Vec<u8>, OutputError> {
    let mut weight_map = Map::new();
    for (number, members) in layout.iter().enumerate() {
        for index in members {
            weight_map.insert(recipes[*index].name.clone(), Value::String(shard_name(number, layout.len())));
        }
    }
    let total_size: u64 = recipes.iter().map(Recipe::n_bytes).sum();
    let metadata = json!({ "total_size": total_size, "mergesweep_version": env!("CARGO_PKG_VERSION") });
    serde_json::to_vec_pretty(&json!({ "metadata": metadata, "weight_map": weight_map }))
        .map_err(|source| OutputError::Json { file: INDEX.into(), source })
}
