//! Options of mergekit that change nothing here: taken, so that command lines written for it go through, and answered with
//! one line that says why.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// The given ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignored(Vec<&'static Row>);

/// One option.
#[derive(Debug)]
struct Row {
    name: &'static str,
    /// Name of its value, if it takes one.
    value: Option<&'static str>,
    /// Its negation, where there is one: the default, so nothing to say about.
    negation: Option<&'static str>,
    why: &'static str,
}

const NO_ACCELERATOR: &str = "merging runs on the CPU, at the speed of memory and disk";
const NO_UNPICKLING: &str = "safetensors files are mapped, never unpickled";
const ALWAYS_STREAMED: &str = "tensors are always written while others are computed";

const ROWS: &[Row] = &[
    Row { name: "cuda", value: None, negation: Some("no-cuda"), why: NO_ACCELERATOR },
    Row { name: "device", value: Some("D"), negation: None, why: NO_ACCELERATOR },
    Row { name: "low-cpu-memory", value: None, negation: Some("no-low-cpu-memory"), why: NO_ACCELERATOR },
    Row { name: "read-to-gpu", value: None, negation: Some("no-read-to-gpu"), why: NO_ACCELERATOR },
    Row { name: "multi-gpu", value: None, negation: Some("no-multi-gpu"), why: NO_ACCELERATOR },
    Row { name: "gpu-rich", value: None, negation: None, why: NO_ACCELERATOR },
    Row { name: "lazy-unpickle", value: None, negation: Some("no-lazy-unpickle"), why: NO_UNPICKLING },
    Row {
        name: "clone-tensors",
        value: None,
        negation: Some("no-clone-tensors"),
        why: "repeated layers are written out each by itself",
    },
    Row {
        name: "trust-remote-code",
        value: None,
        negation: Some("no-trust-remote-code"),
        why: "no code of a model is run",
    },
    Row { name: "lora-merge-cache", value: Some("DIR"), negation: None, why: "adapters are applied while reading" },
    Row { name: "async-write", value: None, negation: Some("no-async-write"), why: ALWAYS_STREAMED },
    Row { name: "write-threads", value: Some("N"), negation: None, why: ALWAYS_STREAMED },
];

/// Asking for pickles: the one negation that is no default.
const PICKLES: Row =
    Row { name: "no-safe-serialization", value: None, negation: None, why: "only safetensors files are written" };

impl Ignored {
    /// One line for every option that was given.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|row| format!("note: `--{}` has no effect: {}", row.name, row.why))
    }
}

impl clap::FromArgMatches for Ignored {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |row: &&'static Row| match row.value {
            Some(_) => matches.get_one::<String>(row.name).is_some(),
            None => matches.get_flag(row.name),
        };
        Ok(Self(ROWS.iter().chain([&PICKLES]).filter(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Ignored {
    fn augment_args(command: Command) -> Command {
        let heading = "Options of mergekit without effect here";
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help_heading(heading);
        let mut command = command;
        for row in ROWS {
            let arg = match row.value {
                Some(value) => Arg::new(row.name).long(row.name).value_name(value).help_heading(heading),
                None => flag(row.name),
            };
            command = command.arg(arg.help(row.why));
            if let Some(negation) = row.negation {
                command = command.arg(flag(negation).hide(true).overrides_with(row.name));
                command = command.mut_arg(row.name, |arg| arg.overrides_with(negation));
            }
        }
        command
            .arg(flag("safe-serialization").hide(true).overrides_with(PICKLES.name))
            .arg(flag(PICKLES.name).help(PICKLES.why).overrides_with("safe-serialization"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
