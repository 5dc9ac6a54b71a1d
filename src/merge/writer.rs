//! The weights of an output: one safetensors file, or shards and an index, laid out before the first tensor is computed
//! and then written piece by piece at fixed offsets, in any order and from any thread.
//!
//! A tensor goes to the shard that mergekit would put it in: a shard ends before the tensor that would overflow it, and a
//! larger tensor gets a shard of its own. Headers are padded so that data begins on a page.
//!
//! Data goes to disk without a copy in the page cache (O_DIRECT) where the file system can: that takes less of a core,
//! keeps its pace while evaluations occupy the others, and leaves the inputs in the cache. Such writes are whole pages,
//! from memory that begins on one; what is left at the two ends of a piece waits until the page is full.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
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
    /// The same file, open for writing past the page cache.
    direct: Option<File>,
    /// Bytes it has in the end.
    size: u64,
    /// Pages that are not full yet, by number.
    edges: Mutex<BTreeMap<u64, Edge>>,
}

#[derive(Debug)]
struct Edge {
    page: PageBuffer,
    filled: usize,
}

/// Bytes on their way to a file, which lie to the pages of memory as they will to those of the file.
#[derive(Debug, Default)]
pub struct PageBuffer {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl PageBuffer {
    /// Makes room for `len` bytes that begin `lead` bytes after the start of a page. Their contents are left over from
    /// earlier work.
    pub fn reserve(&mut self, lead: usize, len: usize) {
        let needed = lead + len + PAGE;
        if self.memory.len() < needed {
            self.memory.resize(needed, 0);
        }
        // Never the largest number for bytes, and then the bytes would only lie badly.
        let to_page = self.memory.as_ptr().align_offset(PAGE).min(PAGE);
        (self.start, self.len) = (to_page + lead, len);
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }

    /// The bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
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
    /// Whether rows of an input are laid out for another vocabulary.
    pub fn is_laid_out(&self) -> bool {
        self.inputs.iter().any(|input| input.rows.is_some())
    }

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
            files.push(Shard::create(number, members, recipes, path, &mut places)?);
        }
        if layout.len() > 1 {
            staging.write(INDEX, &index(&layout, recipes)?)?;
        }
        Ok(Self { shards: files, places })
    }

    /// How far behind the start of a page byte `offset` of the tensor of a recipe lies in its file.
    pub fn lead(&self, recipe: usize, offset: u64) -> usize {
        ((self.places[recipe].offset + offset) % PAGE as u64) as usize
    }

    /// Writes bytes of the tensor of a recipe, from byte `offset` of the tensor. The buffer was reserved with their
    /// [`Writer::lead`].
    ///
    /// # Errors
    /// [`OutputError::Write`].
    pub fn write(&self, recipe: usize, offset: u64, buffer: &PageBuffer) -> Result<(), OutputError> {
        let place = self.places[recipe];
        let shard = &self.shards[place.shard];
        shard.write(place.offset + offset, buffer.bytes()).map_err(OutputError::write(&shard.path))
    }

    /// Waits until everything is on disk.
    ///
    /// # Errors
    /// [`OutputError::Write`].
    pub fn finish(self) -> Result<(), OutputError> {
        self.shards.iter().try_for_each(|shard| shard.finish().map_err(OutputError::write(&shard.path)))
    }
}

impl Shard {
    fn write(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(direct) = &self.direct else { return self.file.write_all_at(bytes, position) };
        let page = PAGE as u64;
        let head = ((page - position % page) % page).min(bytes.len() as u64) as usize;
        let body = (bytes.len() - head) / PAGE * PAGE;
        let (head, rest) = bytes.split_at(head);
        let (body, tail) = rest.split_at(body);
        self.edge(position, head)?;
        let position = position + head.len() as u64;
        if !body.is_empty() {
            self.write_pages(direct, position, body)?;
        }
        self.edge(position + body.len() as u64, tail)
    }

    fn write_pages(&self, direct: &File, position: u64, pages: &[u8]) -> io::Result<()> {
        match direct.write_all_at(pages, position) {
            // Memory or file did not lie as this device wants them.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.file.write_all_at(pages, position),
            written => written,
        }
    }

    /// Keeps a part of a page until the rest of it has come.
    fn edge(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let number = position / PAGE as u64;
        let full = {
            let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
            let edge = edges.entry(number).or_insert_with(|| {
                let mut page = PageBuffer::default();
                page.reserve(0, PAGE);
                Edge { page, filled: 0 }
            });
            let from = (position % PAGE as u64) as usize;
            edge.page.bytes_mut()[from..from + bytes.len()].copy_from_slice(bytes);
            edge.filled += bytes.len();
            let expected = (self.size - number * PAGE as u64).min(PAGE as u64) as usize;
            if edge.filled == expected { edges.remove(&number) } else { None }
        };
        match (full, &self.direct) {
            // The last page of a file is written whole, and the file cut to its size in the end.
            (Some(edge), Some(direct)) => self.write_pages(direct, number * PAGE as u64, edge.page.bytes()),
            _ => Ok(()),
        }
    }

    fn finish(&self) -> io::Result<()> {
        if self.direct.is_some() {
            self.file.set_len(self.size)?;
        }
        self.file.sync_data()
    }

    /// Lays the file out and makes it.
    fn create(
        number: usize,
        members: &[usize],
        recipes: &[Recipe],
        path: PathBuf,
        places: &mut [Place],
    ) -> Result<Self, OutputError> {
        // Wider formats first: no tensor then starts at an offset that its own format does not divide.
        let mut ordered = members.to_vec();
        ordered.sort_by_key(|index| std::cmp::Reverse(recipes[*index].out.size()));
        let mut infos = Vec::with_capacity(ordered.len());
        let mut end = 0;
        for index in &ordered {
            let recipe = &recipes[*index];
            let begin = end;
            end += recipe.n_bytes() as usize;
            let info =
                TensorInfo { dtype: stored(recipe.out), shape: recipe.shape.clone(), data_offsets: (begin, end) };
            places[*index] = Place { shard: number, offset: begin as u64 };
            infos.push((recipe.name.clone(), info));
        }
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let metadata = Metadata::new(Some(metadata), infos)
            .map_err(|source| OutputError::Header { file: path.clone(), source })?;
        let mut header =
            serde_json::to_vec(&metadata).map_err(|source| OutputError::Json { file: path.clone(), source })?;
        let data_start = (8 + header.len()).next_multiple_of(PAGE);
        header.resize(data_start - 8, b' ');
        for index in ordered {
            places[index].offset += data_start as u64;
        }
        let size = (data_start + end) as u64;
        let (file, direct) = make_file(&path, size, &header).map_err(OutputError::write(&path))?;
        Ok(Self { path, file, direct, size, edges: Mutex::default() })
    }
}

fn make_file(path: &Path, size: u64, header: &[u8]) -> io::Result<(File, Option<File>)> {
    let file = File::create(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        // Some file systems cannot reserve.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(size)?,
        reserved => reserved?,
    }
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0)?;
    file.write_all_at(header, 8)?;
    // Some file systems, those in memory above all, have no way past the page cache.
    let direct = OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path).ok();
    Ok((file, direct))
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
