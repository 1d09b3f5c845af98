//! The one place where text and paths from a repository are made safe to print.
//!
//! The tool runs on untrusted pull requests: a key, a value or a file name may hold terminal
//! escapes, bidirectional controls, or a live workflow command.
