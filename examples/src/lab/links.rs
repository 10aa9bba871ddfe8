//! Links, addresses and routes, by rtnetlink: the bridge, and each pod's cable to it.
//!
//! Each function works in the network namespace of the thread that calls it.

use std::{future::Future, net::IpAddr, os::fd::AsRawFd, os::fd::BorrowedFd};

use anyhow::{Context, Result};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::AddressHeaderFlags,
        link::{InfoData, InfoVeth},
    },
};

use crate::lab::addresses::{GATEWAY_V4, GATEWAY_V6, PREFIX_V4, PREFIX_V6, PodAddresses};

/// The bridge's name.
pub const BRIDGE: &str = "br0";
/// What a pod calls its end of the cable.
pub const POD_LINK: &str = "eth0";

/// Makes the bridge, with its addresses, and brings loopback up.
///
/// # Errors
/// As the kernel says.
pub fn make_bridge() -> Result<()> {
    with_route(async |route| {
        up(&route, "lo").await?;
        route.link().add(LinkBridge::new(BRIDGE).build()).execute().await.context("add the bridge")?;
        let bridge = index(&route, BRIDGE).await?;
        address(&route, bridge, GATEWAY_V4.into(), PREFIX_V4).await?;
        address(&route, bridge, GATEWAY_V6.into(), PREFIX_V6).await?;
        // Whatever no pod owns goes to the bridge too and finds nobody: an unknown address fails as it does in a network.
        Ok(())
    })
}

/// Gives the bridge one more address: a host outside the mesh.
///
/// # Errors
/// As the kernel says.
pub fn add_bridge_address(outside: IpAddr) -> Result<()> {
    let whole = if outside.is_ipv4() { 32 } else { 128 };
    with_route(async |route| {
        let bridge = index(&route, BRIDGE).await?;
        address(&route, bridge, outside, whole).await
    })
}

/// Plugs the calling pod's namespace into the bridge: cable, addresses, default routes, loopback up. `port` names the
/// bridge's end, which is born in the namespace `bridge`.
///
/// # Errors
/// As the kernel says.
pub fn plug_in(port: &str, bridge: BorrowedFd<'_>, addresses: PodAddresses) -> Result<()> {
    with_route(async |route| {
        up(&route, "lo").await?;
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(port).setns_by_fd(bridge.as_raw_fd()).build();
        let cable =
            LinkVeth::new(POD_LINK, port).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).up().build();
        route.link().add(cable).execute().await.context("add the pod's cable")?;
        let link = index(&route, POD_LINK).await?;
        address(&route, link, addresses.v4.into(), PREFIX_V4).await?;
        address(&route, link, addresses.v6.into(), PREFIX_V6).await
    })
}

/// The bridge's side of [`plug_in`], in the bridge's namespace.
///
/// # Errors
/// As the kernel says.
pub fn attach(port: &str) -> Result<()> {
    with_route(async |route| {
        let bridge = index(&route, BRIDGE).await?;
        let port = LinkUnspec::new_with_name(port).controller(bridge).up().build();
        route.link().set(port).execute().await.context("attach the cable to the bridge")
    })
}

/// The pod's default routes; they need the cable's other end up.
///
/// Without one a connection fails before the output hook, so that nothing would be redirected.
///
/// # Errors
/// As the kernel says.
pub fn add_default_routes() -> Result<()> {
    with_route(async |route| {
        let link = index(&route, POD_LINK).await?;
        let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(GATEWAY_V4).output_interface(link);
        route.route().add(v4.build()).execute().await.context("add the IPv4 default route")?;
        let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(GATEWAY_V6).output_interface(link);
        route.route().add(v6.build()).execute().await.context("add the IPv6 default route")
    })
}

async fn up(route: &Handle, link: &str) -> Result<()> {
    let message = LinkUnspec::new_with_name(link).up().build();
    route.link().set(message).execute().await.with_context(|| format!("bring {link} up"))
}

async fn address(route: &Handle, link: u32, address: IpAddr, prefix: u8) -> Result<()> {
    let mut request = route.address().add(link, address, prefix);
    // Nobody else could hold it, and duplicate address detection would make the first seconds fail.
    request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    request.execute().await.with_context(|| format!("add address {address}"))
}

async fn index(route: &Handle, link: &str) -> Result<u32> {
    use futures_util::TryStreamExt as _;
    let found = route.link().get().match_name(link.to_owned()).execute().try_next().await;
    let found = found.with_context(|| format!("look for link {link}"))?;
    Ok(found.with_context(|| format!("no link is called {link}"))?.header.index)
}

/// Runs `work` on a netlink connection of the calling thread's namespace.
fn with_route<T, F: Future<Output = Result<T>>>(work: impl FnOnce(Handle) -> F) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().context("open rtnetlink")?;
        let connection = tokio::spawn(connection);
        let done = work(handle).await;
        connection.abort();
        done
    })
}
