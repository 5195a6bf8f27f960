//! The endpoints of a range server and the requests of a run.
//!
//! In: endpoints and a number. Out: a [`Plan`]: which requests, in which order,
//! each with the bytes that it allocates. Deterministic. Deliberately not here:
//! sending them.

/// One endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The path, up to the amount if there is one.
    pub path: &'static str,
    /// What a request allocates.
    pub amount: Amount,
    /// What becomes of it.
    pub retained: bool,
}

/// What one request allocates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Nothing but what the server itself needs for a request.
    Overhead,
    /// So many bytes, whatever the request: the path is as it is.
    Fixed(u64),
    /// As many bytes as the path's last segment says; requests differ by steps
    /// of 5 % from this up to twice as much, so that bytes of one request in
    /// another of the same endpoint show.
    Asked(u64),
}

/// Distinct amounts of an endpoint; each is 1/20 of the base above the last.
const STEPS: u64 = 20;

impl Endpoint {
    /// An endpoint that allocates what it is asked for, and gives it back.
    #[must_use]
    pub const fn asked(path: &'static str, bytes: u64) -> Self {
        Self {
            path,
            amount: Amount::Asked(bytes),
            retained: false,
        }
    }

    /// The same, never given back.
    #[must_use]
    pub const fn kept(path: &'static str, bytes: u64) -> Self {
        Self {
            path,
            amount: Amount::Asked(bytes),
            retained: true,
        }
    }

    /// An endpoint that allocates the same for each request.
    #[must_use]
    pub const fn fixed(path: &'static str, bytes: u64) -> Self {
        Self {
            path,
            amount: Amount::Fixed(bytes),
            retained: false,
        }
    }

    /// An endpoint without a known amount.
    #[must_use]
    pub const fn overhead(path: &'static str) -> Self {
        Self {
            path,
            amount: Amount::Overhead,
            retained: false,
        }
    }

    fn request(&self, endpoint: usize, number: usize) -> Request {
        let (path, bytes) = match self.amount {
            Amount::Overhead => (self.path.to_owned(), 0),
            Amount::Fixed(bytes) => (self.path.to_owned(), bytes),
            Amount::Asked(base) => {
                let bytes = base + base / STEPS * (number as u64 % STEPS);
                (format!("{}/{bytes}", self.path), bytes)
            }
        };
        Request {
            endpoint,
            number,
            path,
            bytes,
        }
    }
}

/// One request to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which endpoint, by its place in the plan.
    pub endpoint: usize,
    /// Its number among the requests of the endpoint.
    pub number: usize,
    /// Its path.
    pub path: String,
    /// What it allocates, bytes.
    pub bytes: u64,
}

/// The requests of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// All requests, mixed.
    pub requests: Vec<Request>,
}

impl Plan {
    /// So many requests of each endpoint, in an order that mixes them but is the
    /// same every time.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, of_each: usize) -> Self {
        let mut requests: Vec<Request> = (0..of_each)
            .flat_map(|number| {
                endpoints
                    .iter()
                    .enumerate()
                    .map(move |(index, endpoint)| endpoint.request(index, number))
            })
            .collect();
        // A shuffle (Fisher-Yates) by a multiplicative generator (Lehmer's, with
        // the constants of MINSTD): fair enough, and the same on every machine.
        let mut state: u64 = 20_261_121;
        for last in (1..requests.len()).rev() {
            state = state * 48_271 % 2_147_483_647;
            requests.swap(last, (state % (last as u64 + 1)) as usize);
        }
        Self {
            endpoints,
            requests,
        }
    }

    /// Known bytes of all requests.
    #[must_use]
    pub fn known_bytes(&self) -> u64 {
        self.requests.iter().map(|request| request.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_mixed_whole_and_always_the_same() {
        let endpoints = vec![
            Endpoint::overhead("/plain"),
            Endpoint::asked("/freed", 1000),
            Endpoint::kept("/kept", 2000),
        ];
        let plan = Plan::new(endpoints.clone(), 40);
        assert_eq!(plan.requests, Plan::new(endpoints, 40).requests);
        assert_eq!(plan.requests.len(), 120);
        for endpoint in 0..3 {
            let mut numbers: Vec<usize> = plan
                .requests
                .iter()
                .filter(|request| request.endpoint == endpoint)
                .map(|request| request.number)
                .collect();
            assert!(!numbers.is_sorted(), "not mixed");
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..40));
        }
        // Twice 20 steps of 50 from 1000, and of 100 from 2000.
        assert_eq!(plan.known_bytes(), 2 * (20 * 1475 + 20 * 2950));
        let paths: Vec<&str> = plan.requests.iter().map(|r| r.path.as_str()).collect();
        assert!(paths.contains(&"/freed/1950") && paths.contains(&"/plain"));
    }
}
