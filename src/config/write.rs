//! A `MergeConfig` as YAML that mergekit reads the same way.
