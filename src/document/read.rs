//! Walking a document: typed readers that collect every mistake.
