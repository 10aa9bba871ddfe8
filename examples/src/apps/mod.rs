//! The shop: ordinary programs that know nothing of a mesh, in one multi-call binary. No file here imports a crate of
//! Douane, or the lab; a test reads the `use` lines and holds that.
//!
//! Servers: `web` → `orders` → `inventory` (gRPC) and `ledger` (opaque TCP), and a `partner` outside. Clients
//! that an operator runs inside a pod: `get`, `load`, `ledger-say`, `ledger-hold`, `grpc`, `tls-probe`.

mod answer;
mod args;
mod call;
mod carry;
mod client;
mod inventory;
mod ledger;
mod orders;
mod partner;
mod serve;
mod stop;
mod web;

/// Messages and stubs of `inventory.proto` (checked in; `tests/generated.rs` keeps them fresh).
mod wire {
    #![expect(
        unused_qualifications,
        unreachable_pub,
        clippy::allow_attributes_without_reason,
        reason = "generated code"
    )]
    include!("gen/shop.v1.rs");
}

use std::{ffi::OsString, process::ExitCode};

use args::Args;

const USAGE: &str = "\
usage: shop ROLE [OPTIONS]

servers
  web       [--listen ADDR] --orders URL
  orders    [--listen ADDR] --inventory URL --ledger HOST:PORT
  inventory [--listen ADDR]
  ledger    [--listen ADDR]
  partner   [--listen ADDR]
  sleep

clients, to run inside a pod
  get URL [-H 'NAME: VALUE']... [-X METHOD] [-d BODY] [--times N] [--every MS] [--json]
  load URL [--seconds N] [--rate R]
  grpc stock URL SKU
  grpc watch URL SKU [--updates N] [--interval MS]
  ledger-say HOST:PORT LINE...
  ledger-hold HOST:PORT [--every MS] [--seconds N]
  tls-probe HOST:PORT [--identity PEM|-] [--alpn NAME]...
";

/// Plays the role that the first argument names; `args` begins with the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = Args::new(args.into_iter().skip(1));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => return fail(&err.into()),
    };
    match runtime.block_on(play(&mut args)) {
        Ok(code) => code,
        Err(err) => fail(&err),
    }
}

async fn play(args: &mut Args) -> anyhow::Result<ExitCode> {
    match args.word("ROLE").unwrap_or_default().as_str() {
        "web" => stop::serve_until_asked(web::run(args)).await,
        "orders" => stop::serve_until_asked(orders::run(args)).await,
        "inventory" => stop::serve_until_asked(inventory::run(args)).await,
        "ledger" => stop::serve_until_asked(ledger::run(args)).await,
        "partner" => stop::serve_until_asked(partner::run(args)).await,
        "sleep" => stop::serve_until_asked(std::future::pending()).await,
        "get" => client::get::run(args).await,
        "load" => client::load::run(args).await,
        "grpc" => client::grpc::run(args).await,
        "ledger-say" => client::ledger::say(args).await,
        "ledger-hold" => client::ledger::hold(args).await,
        "tls-probe" => client::tls_probe::run(args).await,
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

fn fail(err: &anyhow::Error) -> ExitCode {
    eprintln!("shop: {err:#}");
    ExitCode::FAILURE
}
