//! What a run works on: processor, memory and GPUs of its machine. Not the machine's name, which is nobody's business.

use std::fmt;
use std::fs;
use std::thread::available_parallelism;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Slot;
use crate::process::{self, Cancel, Invocation};

/// How long the driver may take to list its GPUs.
const PATIENCE: Duration = Duration::from_secs(5);

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Name of the processor, where the system tells it.
    pub cpu: Option<String>,
    /// Cores that a run may use.
    pub n_cores: usize,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// GPUs, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
}

/// A GPU, as its driver tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its memory, with the unit.
    pub memory: String,
    /// Version of the driver.
    pub driver: String,
}

impl Hardware {
    /// Of this machine: the GPUs are those of the slots, or all where these name none that the driver lists.
    pub fn of(slots: &[Slot]) -> Self {
        let listed = listed("index,uuid,name,memory.total,driver_version");
        let is_named =
            |fields: &&Vec<String>| slots.iter().flat_map(|slot| &slot.gpus).any(|gpu| fields[..2].contains(gpu));
        let named: Vec<&Vec<String>> = listed.iter().filter(is_named).collect();
        let used = if named.is_empty() { listed.iter().collect() } else { named };
        let gpu = |fields: &Vec<String>| Gpu {
            name: fields[2].clone(),
            memory: fields[3].clone(),
            driver: fields[4].clone(),
        };
        Self {
            cpu: cpu(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            n_cores: available_parallelism().map_or(1, std::num::NonZero::get),
            memory: memory("MemTotal"),
            gpus: used.into_iter().map(gpu).collect(),
        }
    }
}

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cores = format!("{} core{}", self.n_cores, if self.n_cores == 1 { "" } else { "s" });
        let memory = self.memory.map(|bytes| format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64));
        let mut parts: Vec<String> = self.cpu.iter().cloned().chain([cores]).chain(memory).collect();
        for (place, gpu) in self.gpus.iter().enumerate().filter(|(place, gpu)| !self.gpus[..*place].contains(gpu)) {
            let n = self.gpus[place..].iter().filter(|other| *other == gpu).count();
            let several = if n > 1 { format!("{n} × ") } else { String::new() };
            parts.push(format!("{several}{} ({}, driver {})", gpu.name, gpu.memory, gpu.driver));
        }
        f.write_str(&parts.join(", "))
    }
}

/// Name of the first processor in `/proc/cpuinfo`.
fn cpu(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    line.map(|(_, name)| name.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Bytes of memory by their name in `/proc/meminfo`.
pub fn memory(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// What the driver says of every GPU, by the names of fields; nothing where there is no driver.
pub fn listed(fields: &str) -> Vec<Vec<String>> {
    let args = [format!("--query-gpu={fields}"), "--format=csv,noheader".to_owned()];
    let asked = process::capture(&Invocation::new("nvidia-smi", args), Some(PATIENCE), &Cancel::never(), &mut |_| {});
    let Some(answer) = asked.ok().filter(|answer| answer.exit.is_success()) else { return Vec::new() };
    let rows = answer.stdout.lines().map(|line| line.split(',').map(|field| field.trim().to_owned()).collect());
    rows.filter(|row: &Vec<String>| row.len() == fields.split(',').count()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_in_a_line() {
        let gpu = |name: &str| Gpu { name: name.to_owned(), memory: "16 GiB".to_owned(), driver: "1.2".to_owned() };
        let machine = Hardware {
            cpu: cpu("processor\t: 0\nmodel name\t: A  CPU @ 2 GHz\n"),
            n_cores: 2,
            memory: Some(3 << 29),
            gpus: vec![gpu("one"), gpu("other"), gpu("one")],
        };
        let told = "A CPU @ 2 GHz, 2 cores, 1.5 GiB, 2 × one (16 GiB, driver 1.2), other (16 GiB, driver 1.2)";
        assert_eq!(machine.to_string(), told);
        assert_eq!(Hardware { n_cores: 1, ..Hardware::default() }.to_string(), "1 core");
        assert!(memory("MemTotal").is_none_or(|bytes| bytes > 1 << 20));
    }
}
