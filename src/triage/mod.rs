//! A run, pack or log to a diagnosis.
