//! Layer directories and the overlay mounts made of them.
