//! How many parameters adapters have, with PEFT's rules for which modules they go to.
