//! The header of a safetensors file, read with distrust: every length and offset in it is checked before it is used.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use safetensors::Dtype as StoredDtype;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Number format.
    pub dtype: StoredDtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// First byte in the file, and the one after the last.
    pub bytes: (usize, usize),
}

/// A file that is no sound safetensors file.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than it must be.
    #[error("`{}`: the file is cut short: expected at least {expected} bytes, found {found}", .file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Longer than the header says.
    #[error("`{}`: expected {expected} bytes from the header, found {found}", .file.display())]
    Trailing {
        /// The file.
        file: PathBuf,
        /// Bytes that the header promises.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A header length that cannot be.
    #[error("`{}`: expected a header of at most {limit} bytes, found a length of {found} (is this a safetensors file?)", .file.display())]
    Length {
        /// The file.
        file: PathBuf,
        /// The limit.
        limit: u64,
        /// What the file says.
        found: u64,
    },
    /// A header that is no JSON of the right form.
    #[error("`{}`: the header cannot be read", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A number format that is not known.
    #[error("`{}`: tensor `{tensor}`: unknown dtype `{found}`", .file.display())]
    UnknownDtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the header says.
        found: String,
    },
    /// Offsets that do not fit dtype and shape.
    #[error("`{}`: tensor `{tensor}`: expected {expected} bytes for {shape:?}, found offsets {begin}..{end}", .file.display())]
    Size {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes of that dtype and shape; `more than can be` is spelled as the largest number.
        expected: u64,
        /// Offsets.
        begin: u64,
        /// Offsets.
        end: u64,
    },
    /// Tensors that overlap, or a gap between them.
    #[error("`{}`: tensor `{tensor}`: expected to begin at {expected}, where the one before ends, found {found}", .file.display())]
    Offset {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// End of the tensor before it.
        expected: u64,
        /// Its own begin.
        found: u64,
    },
    /// A name that stands twice.
    #[error("`{}`: tensor `{tensor}` stands twice in the header", .file.display())]
    Duplicate {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
    },
}

/// The limit of the safetensors library.
const LONGEST: u64 = 100_000_000;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The entries in the order of the file: a JSON map type would hide a name that stands twice.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// The tensors of a file from its bytes.
///
/// # Errors
/// [`HeaderError`] naming what is wrong and where.
pub fn read(file: &Path, bytes: &[u8]) -> Result<BTreeMap<String, TensorInfo>, HeaderError> {
    let found = bytes.len() as u64;
    let truncated = |expected| HeaderError::Truncated { file: file.to_owned(), expected, found };
    let length = u64::from_le_bytes(*bytes.first_chunk::<8>().ok_or_else(|| truncated(8))?);
    if length > LONGEST {
        return Err(HeaderError::Length { file: file.to_owned(), limit: LONGEST, found: length });
    }
    let data_start = 8 + length;
    let header = bytes.get(8..data_start as usize).ok_or_else(|| truncated(data_start))?;
    let Entries(entries) =
        serde_json::from_slice(header).map_err(|source| HeaderError::Syntax { file: file.to_owned(), source })?;
    let mut tensors = BTreeMap::new();
    let mut order = Vec::with_capacity(entries.len());
    for (tensor, Entry { dtype, shape, data_offsets: (begin, end) }) in entries {
        let dtype = stored_dtype(&dtype).ok_or_else(|| HeaderError::UnknownDtype {
            file: file.to_owned(),
            tensor: tensor.clone(),
            found: dtype.clone(),
        })?;
        let expected = n_bytes(dtype, &shape).unwrap_or(u64::MAX);
        if end.checked_sub(begin) != Some(expected) {
            return Err(HeaderError::Size { file: file.to_owned(), tensor, shape, expected, begin, end });
        }
        // The difference of two u64 fits, the sums below may not.
        let in_file = |offset: u64| data_start.checked_add(offset).and_then(|offset| usize::try_from(offset).ok());
        let (Some(first), Some(last)) = (in_file(begin), in_file(end)) else {
            return Err(truncated(u64::MAX));
        };
        order.push((begin, end, tensor.clone()));
        let info = TensorInfo { dtype, shape, bytes: (first, last) };
        if tensors.insert(tensor.clone(), info).is_some() {
            return Err(HeaderError::Duplicate { file: file.to_owned(), tensor });
        }
    }
    order.sort_unstable();
    let mut data_len = 0;
    for (begin, end, tensor) in order {
        if begin != data_len {
            return Err(HeaderError::Offset { file: file.to_owned(), tensor, expected: data_len, found: begin });
        }
        data_len = end;
    }
    match data_start + data_len {
        expected if expected > found => Err(truncated(expected)),
        expected if expected < found => Err(HeaderError::Trailing { file: file.to_owned(), expected, found }),
        _ => Ok(tensors),
    }
}

fn stored_dtype(name: &str) -> Option<StoredDtype> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

fn n_bytes(dtype: StoredDtype, shape: &[usize]) -> Option<u64> {
    let elements = shape.iter().try_fold(1u64, |product, length| product.checked_mul(*length as u64))?;
    elements.checked_mul(dtype.bitsize() as u64).map(|bits| bits.div_ceil(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    fn message(bytes: &[u8]) -> String {
        read(Path::new("m.safetensors"), bytes).map_or_else(|error| error.to_string(), |_| "sound".to_owned())
    }

    const TWO: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}}"#;

    #[test]
    fn a_sound_header_is_read() {
        let tensors = read(Path::new("m.safetensors"), &file(TWO, 14)).unwrap();
        assert_eq!(tensors["b"].bytes, (8 + TWO.len() + 8, 8 + TWO.len() + 14));
    }

    #[test]
    fn every_lie_is_named() {
        let one = |dtype: &str, shape: &str, offsets: &str| {
            file(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), 8)
        };
        insta::assert_snapshot!(
            [
                message(b"short"),
                message(&file(TWO, 14)[..60]),
                message(&file(TWO, 13)),
                message(&file(TWO, 15)),
                message(&u64::MAX.to_le_bytes()),
                message(&file("{", 0)),
                message(&one("F33", "[2]", "[0,8]")),
                message(&one("F32", "[3]", "[0,8]")),
                message(&one("F32", "[2]", "[8,0]")),
                message(&one("F32", "[4611686018427387904,4]", "[0,8]")),
                message(&one("F32", "[2]", "[18446744073709551600,18446744073709551608]")),
                message(&file(&TWO.replace("[8,14]", "[6,12]"), 14)),
                message(&file(&TWO.replace("\"b\"", "\"a\""), 14)),
            ]
            .join("\n"),
            @r#"
    `m.safetensors`: the file is cut short: expected at least 8 bytes, found 5
    `m.safetensors`: the file is cut short: expected at least 117 bytes, found 60
    `m.safetensors`: the file is cut short: expected at least 131 bytes, found 130
    `m.safetensors`: expected 131 bytes from the header, found 132
    `m.safetensors`: expected a header of at most 100000000 bytes, found a length of 18446744073709551615 (is this a safetensors file?)
    `m.safetensors`: the header cannot be read
    `m.safetensors`: tensor `a`: unknown dtype `F33`
    `m.safetensors`: tensor `a`: expected 12 bytes for [3], found offsets 0..8
    `m.safetensors`: tensor `a`: expected 8 bytes for [2], found offsets 8..0
    `m.safetensors`: tensor `a`: expected 18446744073709551615 bytes for [4611686018427387904, 4], found offsets 0..8
    `m.safetensors`: the file is cut short: expected at least 18446744073709551615 bytes, found 108
    `m.safetensors`: tensor `b`: expected to begin at 8, where the one before ends, found 6
    `m.safetensors`: tensor `a` stands twice in the header
    "#);
    }
}
