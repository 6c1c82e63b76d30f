//! What every TCP connection of the bridge is set to, at both ends.

use std::{io, time::Duration};
use tokio::net::TcpStream;

/// After how long a silent connection is asked whether it lives, and how often then until it is given up.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);
/// How long what was sent may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends what is written at once, and notices a peer that is gone without a word.
///
/// Without `TCP_NODELAY` a small message waits for the acknowledgement of the one before it, which the other side may delay
/// by 40 ms.
///
/// # Errors
/// What the operating system says.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (idle, interval, count) = KEEPALIVE;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    #[cfg(target_os = "linux")]
    {
        rustix::net::sockopt::set_tcp_keepidle(stream, idle)?;
        rustix::net::sockopt::set_tcp_keepintvl(stream, interval)?;
        rustix::net::sockopt::set_tcp_keepcnt(stream, count)?;
        let milliseconds = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (idle, interval, count, USER_TIMEOUT);
    Ok(())
}
