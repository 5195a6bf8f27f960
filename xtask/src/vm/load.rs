//! The load of the kernel boot tests, stated once for both sides.
//!
//! Out: the settings that the guest's script reads, and what they amount to:
//! requests per endpoint and connections. What those requests allocate is
//! counted by the guest's server, never computed here.

/// The guest's port; the machine has no other network than its own loopback.
const PORT: u16 = 8080;

/// One run of the load program.
#[derive(Debug)]
pub struct Load {
    /// The name of the setting, and of the section that holds the outcome.
    pub name: &'static str,
    /// What holds if every request was answered.
    pub promise: &'static str,
    /// How many connections are used at once; the server has eight threads.
    connections: u64,
    requests: u64,
    /// Whether every request opens a connection of its own.
    close_each: bool,
    paths: &'static [&'static str],
}

/// What runs under the tracer. The number of connections shares no factor with
/// the number of paths, so every connection asks for every path.
pub const TRACED: [Load; 2] = [
    Load {
        name: "load_keep",
        promise: "keep-alive requests are answered under the tracer",
        connections: 5,
        requests: 1800,
        close_each: false,
        paths: &["/alloc/512", "/keep/256", "/swap/1024", "/alloc/100"],
    },
    Load {
        name: "load_close",
        promise: "requests on new connections are answered under the tracer",
        connections: 3,
        requests: 200,
        close_each: true,
        paths: &["/alloc/100000", "/swap/4000"],
    },
];

/// What runs once the tracer is gone.
pub const AFTER: Load = Load {
    name: "load_after",
    promise: "the server answers after memtrace ended",
    connections: 2,
    requests: 20,
    close_each: false,
    paths: &["/swap/2048"],
};

impl Load {
    /// Requests whose path opens with `/endpoint/`.
    fn requests_of(&self, endpoint: &str) -> u64 {
        let prefix = format!("/{endpoint}/");
        let paths = self.paths.iter().cycle();
        (0..self.requests)
            .zip(paths)
            .filter(|(_, path)| path.starts_with(&prefix))
            .count() as u64
    }

    fn connections_opened(&self) -> u64 {
        if self.close_each {
            self.requests
        } else {
            self.connections
        }
    }

    fn guest_setting(&self) -> String {
        let Self {
            name,
            promise: _,
            connections,
            requests,
            close_each,
            paths,
        } = self;
        let mode = if *close_each { "close" } else { "keep" };
        format!(
            "{name}=\"{connections} {requests} {mode} {}\"\n",
            paths.join(" ")
        )
    }
}

/// The traced requests of one endpoint, such as `alloc`.
pub fn traced_requests(endpoint: &str) -> u64 {
    TRACED.iter().map(|load| load.requests_of(endpoint)).sum()
}

/// The connections that the traced load opens.
pub fn traced_connections() -> u64 {
    TRACED.iter().map(Load::connections_opened).sum()
}

/// The file that the guest's script reads as shell assignments.
pub fn guest_settings() -> String {
    let loads: String = TRACED
        .iter()
        .chain([&AFTER])
        .map(Load::guest_setting)
        .collect();
    format!("port={PORT}\n{loads}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_traced_request_belongs_to_one_endpoint() {
        let all: u64 = TRACED.iter().map(|load| load.requests).sum();
        let by_endpoint: u64 = ["alloc", "keep", "swap"].map(traced_requests).iter().sum();
        assert_eq!(by_endpoint, all);
        assert_eq!(traced_requests("alloc"), 900 + 100);
        assert_eq!(traced_requests("keep"), 450);
        assert_eq!(traced_connections(), 5 + 200);
    }

    #[test]
    fn the_guest_reads_words() {
        assert!(guest_settings().contains("load_after=\"2 20 keep /swap/2048\"\n"));
    }
}
