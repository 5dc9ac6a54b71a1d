//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Writes a whole file by rename from a temporary sibling, readable as umask allows, and makes its folder. Of a link the
/// file it leads to is replaced; what is no file (`/dev/stdout`, a pipe) is written to as it is. Of several that write the same
/// file at a time each one's is whole, and the last one's stays.
///
/// # Errors
/// What the file system says; the old file, if any, is then untouched and nothing is left beside it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Ok(known) = fs::metadata(path) {
        if !known.is_file() && !known.is_dir() {
            return File::options().write(true).open(path)?.write_all(bytes);
        }
    } else {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    }
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = alone(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_data()?;
        // Still locked: whoever waits for it finds another file there.
        fs::rename(&partial, path)
    });
    if written.is_err() {
        // It is worth nothing; that removing it fails too adds nothing to the error.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Makes an empty file that nobody else writes as long as it is open.
fn alone(path: &Path) -> io::Result<File> {
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        // Where nobody can lock anything, everybody writes as if alone.
        let _ = file.lock();
        if is_at(&file, path)? {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

/// Whether an open file is the one at a path, and was not moved or replaced meanwhile.
///
/// # Errors
/// Where the open file cannot be asked.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    Ok(fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (open.dev(), open.ino())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_replaces_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.txt");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn many_write_the_same_file_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        std::thread::scope(|scope| {
            for writer in 0..8_u8 {
                let path = &path;
                scope.spawn(move || {
                    let bytes = vec![writer; 1000 + usize::from(writer)];
                    for _ in 0..25 {
                        write_atomically(path, &bytes).unwrap();
                        let found = fs::read(path).unwrap();
                        assert!(found.iter().all(|byte| *byte == found[0]), "a mixture");
                        assert_eq!(found.len(), 1000 + usize::from(found[0]));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_and_what_is_no_file_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        write_atomically(Path::new("/dev/null"), b"nothing").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_file_that_cannot_be_put_in_place_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("full")).unwrap();
        write_atomically(&taken, b"one").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
