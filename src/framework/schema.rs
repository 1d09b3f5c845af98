//! Validates a file against its framework's JSON Schema and gives back what is wrong, one item a
//! mistake, on the key or value itself. The rules `unknown-key`, `wrong-type` and their like
//! turn the items into findings.
