//! Parsing: TOML and YAML text into nodes.
