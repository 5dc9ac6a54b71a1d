//! Computed pieces on their way to the disk: they are handed to threads that do nothing but write, so that no core waits for
//! the disk as long as it keeps up.
//!
//! Invariants: a bounded number of pieces waits, so memory is bounded however slow the disk is; buffers go round; after a
//! write that failed nothing more is written, and its error is what the run ends with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use super::MergeError;
use super::staging::OutputError;
use super::writer::{PageBuffer, Writer};

/// Threads that write: a disk takes two requests at a time better than one.
const THREADS: usize = 2;

/// Pieces that may wait.
const WAITING: usize = 8;

/// One piece, and where it goes.
#[derive(Debug)]
pub struct Parcel<'a> {
    /// The output.
    pub writer: &'a Writer,
    /// Number of the recipe.
    pub recipe: usize,
    /// First byte in the tensor.
    pub offset: u64,
    /// The bytes.
    pub buffer: PageBuffer,
}

/// Where pieces are handed in.
#[derive(Debug)]
pub struct Outbox<'a, 'b> {
    waiting: SyncSender<Parcel<'a>>,
    shared: &'b Shared,
}

#[derive(Debug, Default)]
struct Shared {
    /// Buffers whose bytes are written.
    spare: Mutex<Vec<PageBuffer>>,
    has_failed: AtomicBool,
    failure: Mutex<Option<OutputError>>,
}

impl<'a> Outbox<'a, '_> {
    /// A buffer whose contents are left over from earlier work.
    pub fn buffer(&self) -> PageBuffer {
        self.shared.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Has a piece written, after a while. Waits where too many are waiting.
    pub fn send(&self, parcel: Parcel<'a>) {
        // The threads take parcels until the outbox is gone.
        let _ = self.waiting.send(parcel);
    }

    /// Whether a write has failed: what is computed from now on is in vain.
    pub fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Relaxed)
    }
}

/// Runs `work` with an outbox, and returns when everything that was handed in is written.
///
/// # Errors
/// [`OutputError`] of the first write that failed or of threads that cannot be had, otherwise what `work` says.
pub fn with_outbox<'a, T>(work: impl FnOnce(&Outbox<'a, '_>) -> Result<T, MergeError>) -> Result<T, MergeError> {
    let (waiting, parcels) = sync_channel(WAITING);
    let (parcels, shared) = (Mutex::new(parcels), Shared::default());
    let result = thread::scope(|scope| {
        for _ in 0..THREADS {
            let started = Builder::new().spawn_scoped(scope, || shared.write_all(&parcels));
            started.map_err(|source| OutputError::Threads { source })?;
        }
        let outbox = Outbox { waiting, shared: &shared };
        work(&outbox)
        // The outbox goes here, and with it the threads.
    });
    match shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error.into()),
        None => result,
    }
}

impl Shared {
    fn write_all(&self, parcels: &Mutex<Receiver<Parcel<'_>>>) {
        loop {
            let next = parcels.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Parcel { writer, recipe, offset, buffer }) = next else { return };
            if !self.has_failed.load(Ordering::Relaxed)
                && let Err(error) = writer.write(recipe, offset, &buffer)
            {
                self.has_failed.store(true, Ordering::Relaxed);
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}
