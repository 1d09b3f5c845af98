//! The output formats: one file each. They know findings and estimates, and nothing of how
//! those came about. Every text from the repository goes through [`crate::sanitize`].
