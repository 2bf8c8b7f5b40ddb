//! Arguments of `doctor`.
#![allow(rustdoc::bare_urls, reason = "they are examples, shown on a terminal")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::tools::{AppSettings, seconds};

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Where browsers connect to, such as https://ws.example.com [default: what VITE_REVERB_HOST or REVERB_HOST say]
    pub url: Option<String>,
    /// Laravel project, whose own PHP is asked [default: this directory, if it is one]
    #[arg(long, value_name = "DIRECTORY")]
    pub project: Option<PathBuf>,
    /// PHP to ask
    #[arg(long, value_name = "PROGRAM", default_value = "php")]
    pub php: String,
    /// Page that opens the socket, such as https://example.com [default: APP_URL]
    #[arg(long, value_name = "URL")]
    pub page: Option<String>,
    /// Where the page asks whether a user may join a channel [default: the project's route, on APP_URL]
    #[arg(long, value_name = "URL")]
    pub auth: Option<String>,
    /// Channel to ask that for [default: one that nobody has]
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// Header to ask with, such as "Authorization: Bearer 1|abc", to be a user; can be repeated
    #[arg(long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// Also wait on an idle socket, a minute and a half as a rule, whether something cuts it off
    #[arg(long)]
    pub slow: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// The application.
    #[command(flatten)]
    pub app: AppSettings,
    /// Seconds that each step may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
}
