//! A file that a program writes to, read while it grows. Positioned reads, since the program shares the file's offset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Reads what stands in a file from `position` on, piece by piece, and gives back where it ends now.
pub(super) fn follow(file: &File, mut position: u64, take: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match file.read_at(&mut buffer, position)? {
            0 => return Ok(position),
            n_bytes => {
                take(&buffer[..n_bytes]);
                position += n_bytes as u64;
            }
        }
    }
}
