//! Applies image layers to directories.
