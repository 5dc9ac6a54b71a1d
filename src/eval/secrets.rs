//! The user's tokens and keys: they are handed on by environment, and blotted out of whatever a program prints or writes.

use std::fs;
use std::io;
use std::path::Path;

/// What stands in their place.
const BLOT: &str = "[hidden]";

/// Shorter values are no secrets, and would blot out half of every log.
const SHORTEST: usize = 8;

/// Values of variables that hold secrets, longest first: one may contain another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets(Vec<(String, String)>);

/// Whether a variable or setting of that name holds a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    ["TOKEN", "KEY", "SECRET", "PASSWORD"].iter().any(|end| name.ends_with(end))
}

/// The name of a secret that a text of a shell or of options spells out (`export NAME=value`). A value that is a variable or comes
/// from a command is none.
pub fn spelt_out(text: &str) -> Option<&str> {
    let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.match_indices('=').find_map(|(place, _)| {
        let before = &text[..place];
        let name = &before[before.trim_end_matches(is_of_name).len()..];
        let value = text[place + 1..].trim_start_matches(['"', '\'']).chars().next();
        let is_told = value.is_some_and(|first| !first.is_whitespace() && !"$`=;,&|)".contains(first));
        (is_secret(name) && is_told).then_some(name)
    })
}

impl Secrets {
    /// Those among variables with their values.
    pub fn among(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let held = |(name, value): &(String, String)| is_secret(name) && value.len() >= SHORTEST;
        let mut secrets: Vec<_> = variables.into_iter().filter(held).collect();
        secrets.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        Self(secrets)
    }

    /// Names of the variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// A text without them.
    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (_, value)| text.replace(value, BLOT))
    }

    /// Takes them out of every file in a folder and below.
    ///
    /// # Errors
    /// What the file system says of the first file that cannot be read or written.
    pub fn blot_out(&self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            if kind.is_dir() {
                self.blot_out(&path)?;
            } else if kind.is_file() {
                self.blot_out_of(&path)?;
            }
        }
        Ok(())
    }

    fn blot_out_of(&self, file: &Path) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let bytes = fs::read(file)?;
        let clean = self.0.iter().fold(bytes.clone(), |bytes, (_, value)| replace(&bytes, value.as_bytes()));
        // In place: a process that goes on writing keeps its file.
        if clean == bytes { Ok(()) } else { fs::write(file, clean) }
    }
}

fn replace(bytes: &[u8], value: &[u8]) -> Vec<u8> {
    let mut clean = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(place) = memchr::memmem::find(rest, value) {
        clean.extend_from_slice(&rest[..place]);
        clean.extend_from_slice(BLOT.as_bytes());
        rest = &rest[place + value.len()..];
    }
    clean.extend_from_slice(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let variables = [("HF_TOKEN", "hf_abcdefgh"), ("OPENAI_API_KEY", "hf_abcdefghij"), ("HOME", "/home/someone")];
        Secrets::among(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    #[test]
    fn only_what_is_named_like_a_secret_is_one() {
        assert_eq!(secrets().names().collect::<Vec<_>>(), ["OPENAI_API_KEY", "HF_TOKEN"]);
        assert_eq!(Secrets::among([("A_KEY".to_owned(), "short".to_owned())]), Secrets::default());
        assert!(!is_secret("TOKENIZERS_PARALLELISM") && is_secret("hub_token"));
    }

    #[test]
    fn a_secret_that_is_spelt_out_is_told_from_one_that_is_looked_up() {
        for text in [
            "module load cuda\nexport HF_TOKEN=hf_abcdefgh",
            "WANDB_API_KEY='abc' true",
            "ALL,OPENAI_API_KEY=sk-1,A=2",
            "hf auth login --token=\"hf_abcdefgh\"",
        ] {
            assert!(spelt_out(text).is_some(), "{text}");
        }
        for text in [
            "export HF_TOKEN=$(cat ~/.token) A=1",
            "export HF_TOKEN=\"$MY_TOKEN\"",
            "HF_TOKEN= true",
            "[ \"$HF_TOKEN\" = x ] && TOKENIZERS_PARALLELISM=false",
            "[[ $HF_TOKEN==x ]]",
            "HF_TOKEN=`cat token`; unset A_KEY",
        ] {
            assert_eq!(spelt_out(text), None, "{text}");
        }
    }

    #[test]
    fn a_secret_within_another_leaves_no_rest() {
        assert_eq!(
            secrets().hide("a hf_abcdefghij b hf_abcdefgh, /home/someone"),
            "a [hidden] b [hidden], /home/someone"
        );
    }

    #[test]
    fn files_lose_them_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/log");
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(&path, b"\xff hf_abcdefgh\n\xfe").unwrap();
        secrets().blot_out(folder.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\xff [hidden]\n\xfe");
    }
}
