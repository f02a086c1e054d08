//! What is refused before anything is created, each by name.
