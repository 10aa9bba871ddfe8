//! A sidecar in a control group of the kernel's with little memory: bodies that nobody reads and connections on which nothing
//! happens fill it, and the kernel has no reason to end it.

use std::{
    cell::{Cell, RefCell},
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use douane_proto::mesh::Protocol;
use douane_proxy::{
    budget::{self, memory::Memory},
    limits::{memory::watch, pressure::Pressure},
};
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use socket2::SockRef;
use tokio::{io::AsyncReadExt as _, task::spawn_local};

use crate::{
    apps::{client1, full, http1},
    pods::{Shop, eventually, run, vip},
    stranger::stranger_called,
};

const MIB: usize = 1 << 20;
/// The sidecars, their clients and their application all live in it.
const LIMIT: usize = 48 * MIB;
const SLOW: usize = 60;
const IDLE: usize = 1000;
const IN_GROUP: &str = "DOUANE_TEST_IN_GROUP";

/// A control group for one test; gone with it.
struct Group(PathBuf);

impl Group {
    /// `None` where the kernel, or who gave us this place in it, permits none.
    fn with(limit: usize) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (root, file) = match parts.next()? {
                "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                "" => ("/sys/fs/cgroup", "memory.max"),
                _ => return None,
            };
            let own = parts.next()?.trim_start_matches('/');
            let near = Path::new(root).join(own);
            let around = if near.exists() { near } else { PathBuf::from(root) };
            let group = Self(around.join(format!("douane-test-{}", process::id())));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(file), limit.to_string()).ok().map(|()| group)
        })
    }

    /// Runs the test called `name` again, in this group from its first instruction on.
    fn run(&self, name: &str) -> process::Output {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$1\" && exec \"$2\" --exact \"$3\" --nocapture", "sh"]);
        command.arg(self.0.join("cgroup.procs")).arg(env::current_exe().unwrap()).arg(name);
        command.env(IN_GROUP, "1").output().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_flood_in_little_memory_is_shed_before_the_kernel_ends_the_sidecar_and_a_neighbour_is_answered() {
    let name = "shortage::a_flood_in_little_memory_is_shed_before_the_kernel_ends_the_sidecar_and_a_neighbour_is_answered";
    if env::var_os(IN_GROUP).is_some() {
        return flooded();
    }
    let Some(group) = Group::with(LIMIT) else {
        eprintln!("SKIPPED: no control group can be made here");
        return;
    };
    let told = group.run(name);
    let said = [told.stdout, told.stderr].concat();
    assert!(told.status.success(), "{}: {}", told.status, String::from_utf8_lossy(&said));
    eprintln!("{}", String::from_utf8_lossy(&said));
}

fn flooded() {
    run(async {
        let memory = Memory::own().unwrap();
        assert_eq!(memory.limit(), LIMIT as u64);
        budget::fix(budget::memory::budget());
        let states = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&states);
        spawn_local(watch(Some(memory.clone()), move |pressure| seen.borrow_mut().push(pressure)));
        let much = Bytes::from(vec![7; 4 * MIB]);
        let shop = Shop::open(Protocol::Http1, move |stream| {
            SockRef::from(&stream).set_send_buffer_size(64 * 1024).unwrap();
            let much = much.clone();
            http1(stream, move |request: Request<Incoming>| {
                let much = if request.uri().path() == "/much" { much.clone() } else { Bytes::new() };
                async { http::Response::new(full(much)) }
            })
        })
        .await;
        let mut quick = client1(shop.web.connect(vip()).await).await;
        let (answered, refused) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let counts = [Rc::clone(&answered), Rc::clone(&refused)];
        spawn_local(async move {
            loop {
                let request = Request::get("/").header("host", "orders").body(full("")).unwrap();
                let answer = quick.send_request(request).await.unwrap();
                let count = &counts[usize::from(answer.status() != 200)];
                count.set(count.get() + 1);
                answer.into_body().collect().await.unwrap();
                quick.ready().await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let goes_on = async |what: &str| {
            let more = answered.get() + 20;
            eventually(what, || answered.get() >= more).await;
        };
        goes_on("it begins").await;

        let mut slow = Vec::new();
        for _ in 0..SLOW {
            let stream = shop.web.connect(vip()).await;
            SockRef::from(&stream).set_recv_buffer_size(64 * 1024).unwrap();
            stream.try_write(b"GET /much HTTP/1.1\r\nhost: orders\r\n\r\n").unwrap();
            slow.push(stream);
        }
        goes_on("a neighbour is answered beside bodies that nobody reads").await;
        let began = answered.get();
        let mut idle = Vec::new();
        // As far as the first state: the next ones refuse requests, as they must.
        while idle.len() < IDLE && memory.used().unwrap() < memory.limit() * 86 / 100 {
            idle.push(stranger_called(&shop, "idle").await);
        }
        let most = memory.used().unwrap();
        goes_on("a neighbour is answered beside connections on which nothing happens").await;
        let ended = async {
            for one in &idle {
                while one.clone().ready().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        };
        ended.await;
        assert!(states.borrow().contains(&Pressure::Tight), "{:?}", states.borrow());
        eprintln!(
            "{} MiB at the most, states {:?}; {} answered meanwhile, {} refused",
            most >> 20,
            states.borrow(),
            answered.get() - began,
            refused.get()
        );

        let mut byte = [0; 1];
        for stream in &mut slow {
            stream.read_exact(&mut byte).await.unwrap();
        }
        drop(slow);
        goes_on("a neighbour is answered when it is over").await;
    });
}
