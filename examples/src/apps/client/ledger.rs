//! The ledger's client: `orders` writes through it, `shop ledger-say` and `shop ledger-hold` talk with it.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    time::timeout,
};

use crate::apps::{args::Args, stop};

/// Each step of a talk takes no longer.
const STEP: Duration = Duration::from_secs(5);
/// A line is at most this long, in bytes.
const LINE: u64 = 16 * 1024;

/// One connection, greeted.
#[derive(Debug)]
struct Talk {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    greeting: String,
}

impl Talk {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = timeout(STEP, TcpStream::connect(address)).await.context("no connection in time")??;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let mut talk = Self { read: BufReader::new(read), write, greeting: String::new() };
        talk.greeting = timeout(STEP, talk.line()).await.context("no greeting in time")??;
        Ok(talk)
    }

    async fn say(&mut self, line: &str) -> anyhow::Result<String> {
        let exchange = async {
            self.write.write_all(format!("{line}\n").as_bytes()).await?;
            self.line().await
        };
        timeout(STEP, exchange).await.context("no answer in time")?
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let length = (&mut self.read).take(LINE).read_line(&mut line).await?;
        if length == 0 {
            bail!("closed by the other side");
        }
        Ok(line.trim_end().to_owned())
    }
}

/// A ledger that is written on one kept connection.
#[derive(Debug)]
pub(crate) struct Ledger {
    address: String,
    talk: Mutex<Option<Talk>>,
}

impl Ledger {
    /// Connects at the first entry.
    pub(crate) fn at(address: String) -> Self {
        Self { address, talk: Mutex::new(None) }
    }

    /// Writes an entry and returns its number. A kept connection that has ended is replaced once.
    pub(crate) async fn enter(&self, text: &str) -> anyhow::Result<u64> {
        let line = format!("ENTRY {text}");
        let mut kept = self.talk.lock().await;
        let answer = match kept.take() {
            None => None,
            Some(mut talk) => talk.say(&line).await.ok().map(|answer| (talk, answer)),
        };
        let (talk, answer) = match answer {
            Some(said) => said,
            None => {
                let mut talk = Talk::open(&self.address).await?;
                let answer = talk.say(&line).await?;
                (talk, answer)
            }
        };
        *kept = Some(talk);
        let number = answer.strip_prefix("OK ").with_context(|| format!("the ledger said {answer}"))?;
        Ok(number.parse()?)
    }
}

/// `shop ledger-say`: the greeting, then an answer for each line.
pub(crate) async fn say(args: &mut Args) -> anyhow::Result<ExitCode> {
    let address = args.word("HOST:PORT")?;
    let mut talk = Talk::open(&address).await?;
    println!("{}", talk.greeting);
    for line in args.rest() {
        println!("{}", talk.say(&line).await?);
    }
    Ok(ExitCode::SUCCESS)
}

/// `shop ledger-hold`: keeps one connection, writes an entry now and then, and tells when it ends, in JSON lines.
pub(crate) async fn hold(args: &mut Args) -> anyhow::Result<ExitCode> {
    let every = args.millis("--every", Duration::from_millis(200))?;
    let seconds = args.parsed("--seconds", f64::from(u32::MAX))?;
    let address = args.word("HOST:PORT")?;
    args.end()?;

    let began = Instant::now();
    let mut talk = Talk::open(&address).await?;
    println!("{}", json!({ "event": "open", "greeting": talk.greeting }));
    let mut entries = 0_u64;
    let end = tokio::time::sleep(Duration::from_secs_f64(seconds));
    let asked = stop::asked();
    tokio::pin!(end, asked);
    let closed = loop {
        let next = async {
            let answer = talk.say("ENTRY still here").await;
            if answer.is_ok() {
                tokio::time::sleep(every).await;
            }
            answer
        };
        tokio::select! {
            () = &mut end => break None,
            () = &mut asked => break None,
            answer = next => match answer {
                Ok(_) => entries += 1,
                Err(err) => break Some(format!("{err:#}")),
            },
        }
    };
    let ms = began.elapsed().as_secs_f64() * 1000.0;
    let event = if closed.is_some() { "closed" } else { "stopped" };
    println!("{}", json!({ "event": event, "entries": entries, "ms": ms, "why": closed }));
    Ok(if closed.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
