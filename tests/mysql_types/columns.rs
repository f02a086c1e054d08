//! Every type of column.
