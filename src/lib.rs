//! temp
pub mod app;
pub mod config;
pub mod protocol;
