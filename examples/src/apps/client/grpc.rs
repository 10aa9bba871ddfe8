//! `shop grpc`: asks the inventory once, or watches it.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use serde_json::json;
use tonic::transport::Endpoint;

use crate::apps::{
    args::Args,
    stop,
    wire::{StockReply, StockRequest, WatchRequest, inventory_client::InventoryClient},
};

/// From the first packet to a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Prints each message as a JSON line, and the status in words if it is not OK.
pub(crate) async fn run(args: &mut Args) -> anyhow::Result<ExitCode> {
    let updates = args.parsed("--updates", 0)?;
    let interval_ms = args.parsed("--interval", 200)?;
    let what = args.word("stock|watch")?;
    let url = args.word("URL")?;
    let sku = args.word("SKU")?;
    args.end()?;

    let mut inventory =
        InventoryClient::new(Endpoint::from_shared(url)?.connect_timeout(CONNECT).connect_lazy());
    let asked = async {
        match what.as_str() {
            "stock" => show(&inventory.stock(StockRequest { sku }).await?.into_inner()),
            "watch" => {
                let question = WatchRequest { sku, updates, interval_ms };
                let mut changes = inventory.watch(question).await?.into_inner();
                while let Some(change) = changes.message().await? {
                    show(&change);
                }
            }
            other => bail!("{other}: stock or watch"),
        }
        Ok(())
    };
    tokio::select! {
        ended = asked => ended?,
        () = stop::asked() => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn show(reply: &StockReply) {
    println!("{}", json!({ "sku": reply.sku, "available": reply.available, "revision": reply.revision }));
}
