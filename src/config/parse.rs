//! A document in mergekit's dialect into a `MergeConfig`.
