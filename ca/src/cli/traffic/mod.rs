//! `douane edges|stat|top|tap|why`: what an operator asks of the running mesh, one file each.
//!
//! They know flags and how an answer is printed (`table`, `figures`, `advice`), and read logs (`logged`); the running control plane answers, through the
//! socket that `douane ca status` asks.

mod advice;
mod edges;
mod figures;
mod logged;
mod stat;
mod table;
mod tap;
mod top;
mod why;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    admin::{Answer, Command, call},
    state::StateFolder,
    traffic::view::View,
};

pub(super) use edges::{Edges, run as edges};
pub(super) use stat::{Stat, run as stat};
pub(super) use tap::{Tap, run as tap};
pub(super) use top::{Top, run as top};
pub(super) use why::{Why, run as why};

/// Where the control plane is.
#[derive(Args)]
struct Place {
    /// The state folder of the control plane. Only its own user and root may ask.
    #[arg(long, env = "DOUANE_DIR")]
    dir: PathBuf,
}

/// Which part of the traffic, and how it is printed.
#[derive(Args)]
struct Scope {
    #[command(flatten)]
    place: Place,
    /// Only what has an end in this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Over how long rates, success and latencies are taken: 10s to 1m.
    #[arg(long, default_value = "1m", value_parser = window)]
    window: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For a human.
    Text,
    /// For a script: one JSON object.
    Json,
}

impl Place {
    fn ask(&self, command: &Command) -> Result<Answer> {
        match call(&StateFolder::new(&self.dir), command)? {
            Answer::Refused(reason) => bail!("{reason}"),
            answer => Ok(answer),
        }
    }
}

impl Scope {
    fn view(&self) -> Result<View> {
        let command =
            Command::Traffic { window_seconds: self.window.as_secs(), namespace: self.namespace.clone() };
        match self.place.ask(&command)? {
            Answer::Traffic(view) => Ok(*view),
            _ => bail!("the control plane answered something else; is it of another version?"),
        }
    }
}

fn window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text).map_err(|error| format!("{error}; such as 30s"))?;
    if (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(&window) {
        return Ok(window);
    }
    Err("from 10s to 1m: figures of longer are in Prometheus".to_owned())
}

// Sidecars tell every five seconds.
const SHORTEST_WINDOW: Duration = Duration::from_secs(10);
const LONGEST_WINDOW: Duration = crate::traffic::LONGEST_WINDOW;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_as_long_as_figures_are_kept() {
        assert_eq!(window("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(window("1m"), Ok(Duration::from_secs(60)));
        for wrong in ["9s", "61s", "1h", "", "soon"] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
    }
}
