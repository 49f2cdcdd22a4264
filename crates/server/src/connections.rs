//! Takes connections until the server is to end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use m3ret::watch::Watch;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use crate::guard::Peer;
use crate::routes::{Service, router};
use crate::tls::Tls;

/// How often it is looked whether the server is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often old uploads are looked for.
const ERASE_EVERY: Duration = Duration::from_secs(30);
/// How long open requests may take once the server is to end.
const FAREWELL: Duration = Duration::from_millis(1200);
/// How long an answer may wait for a client that does not read it.
const UNREAD: Duration = Duration::from_secs(30);
/// The pause after a connection that could not be taken, as when too many files are open.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until the watcher stops it.
pub(crate) async fn run(
    listener: std::net::TcpListener,
    service: &Arc<Service>,
    watcher: &dyn Watch,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener).context("listening")?;
    let (stop, stopped) = watch::channel(false);
    let n_connections = service.limits.n_connections.max(1);
    let room = Arc::new(Semaphore::new(n_connections));
    let taking = tokio::spawn(take(
        listener,
        Arc::clone(service),
        Arc::clone(&room),
        stopped,
    ));
    let erasing = tokio::spawn(erase(Arc::clone(service)));
    while !watcher.is_stopped() {
        sleep(LOOK_EVERY).await;
    }
    taking.abort();
    erasing.abort();
    // Connections end after the request that they are in.
    stop.send_replace(true);
    let n_all = u32::try_from(n_connections).unwrap_or(u32::MAX);
    let _ = timeout(FAREWELL, room.acquire_many(n_all)).await;
    Ok(())
}

async fn erase(service: Arc<Service>) {
    let mut ticks = interval(ERASE_EVERY);
    loop {
        ticks.tick().await;
        tokio::task::block_in_place(|| {
            service.spool.erase_old();
            if let Some(tls) = &service.tls {
                tls.renew();
            }
        });
    }
}

async fn take(
    listener: TcpListener,
    service: Arc<Service>,
    room: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
) {
    let routes = router(&service);
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let routes = routes.clone();
        let (stopped, head) = (stopped.clone(), service.limits.head);
        let acceptor = service.tls.as_ref().map(Tls::acceptor);
        tokio::spawn(async move {
            // Without it answers only come later.
            let _ = stream.set_nodelay(true);
            // Who does not read an answer must not keep its place.
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(UNREAD));
            let stream = Box::pin(stream);
            match acceptor {
                None => serve(stream, (routes, Peer(peer)), stopped, head).await,
                // A client that never ends its greeting must not keep its place.
                Some(acceptor) => {
                    if let Ok(Ok(stream)) = timeout(head, acceptor.accept(stream)).await {
                        serve(stream, (routes, Peer(peer)), stopped, head).await;
                    }
                }
            }
            drop(place);
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    (routes, peer): (axum::Router, Peer),
    mut stopped: watch::Receiver<bool>,
    head: Duration,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head);
    let routes = TowerToHyperService::new(routes);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    // A connection that breaks is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
