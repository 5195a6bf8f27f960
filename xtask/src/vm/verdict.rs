//! Reads one machine's console and judges what memtrace reported there.
//!
//! In: the console's text, with the guest's steps, and how the machine ended.
//! Out: one check per promise. The judge of the figures is the guest's server,
//! which counted its own allocations; every comparison is exact, there is no
//! tolerance. It boots nothing and prints nothing.

use serde_json::Value;

use super::boot::Ended;
use super::console::Console;
use super::load;

/// What one endpoint of the guest's server is called in a report's routes.
const ENDPOINTS: [&str; 3] = ["alloc", "keep", "swap"];
/// What the server calls the buffers that belong to a connection, not a request.
const CONNECTION: &str = "connection";

/// One thing that was looked at.
#[derive(Debug)]
pub struct Check {
    /// What holds if it passed.
    pub name: &'static str,
    /// Nothing, or what was found instead.
    pub outcome: Outcome,
}

type Outcome = Result<(), String>;

/// Every check of one boot, in the order in which the guest went.
pub fn judge(console: &str, series: &str, ended: &Ended) -> Vec<Check> {
    let steps = Console::read(console);
    let mut checks = Vec::new();
    let mut check = |name, outcome| checks.push(Check { name, outcome });

    check("the machine boots this series", boots(&steps, series));
    check(
        "the kernel has its types (BTF)",
        steps.succeeded("btf").map(drop),
    );
    check("the server starts", steps.succeeded("server").map(drop));
    check("doctor succeeds", steps.succeeded("doctor").map(drop));
    check(
        "doctor succeeds on the server",
        steps.succeeded("doctor_pid").map(drop),
    );
    check("memtrace attaches", steps.succeeded("attach").map(drop));
    for load in &load::TRACED {
        check(load.promise, steps.succeeded(load.name).map(drop));
    }
    check("the server counted the load", server_counted_load(&steps));
    check(
        "memtrace ends when told to",
        steps.succeeded("record").map(drop),
    );
    check(
        load::AFTER.promise,
        steps.succeeded(load::AFTER.name).map(drop),
    );
    check("the table is printed", steps.succeeded("table").map(drop));
    check(
        "the live report equals the capture's",
        live_equals_report(&steps),
    );

    type Judge = fn(&Value, &Value) -> Outcome;
    let comparisons: [(&'static str, Judge); 7] = [
        ("nothing is lost", |report, _| {
            expect(report, "/capture/lost/total", 0)
        }),
        ("the process's counts are the server's", process_counts),
        (
            "the endpoints' requests are the server's",
            endpoint_requests,
        ),
        (
            "the endpoints' allocations are the server's",
            endpoint_allocations,
        ),
        ("what is kept is retained, what is freed is not", retained),
        ("the connections' buffers are in no request", unattributed),
        ("the connections are counted", connections),
    ];
    let figures = steps
        .json("report")
        .and_then(|report| Ok((report, steps.json("counters")?)));
    for (name, compare) in comparisons {
        check(
            name,
            match &figures {
                Ok((report, server)) => compare(report, server),
                Err(reason) => Err(reason.clone()),
            },
        );
    }
    check(
        "the machine switches itself off",
        match ended {
            Ended::PowerOff => Ok(()),
            Ended::TimeLimit(limit) => Err(format!("still running after {limit:?}")),
            Ended::EmulatorFailed(status) => Err(format!("the emulator ended with {status}")),
        },
    );
    checks
}

fn boots(console: &Console, series: &str) -> Outcome {
    let release = console.succeeded("kernel")?;
    match release.strip_prefix(series) {
        Some(rest) if rest.starts_with('.') => Ok(()),
        _ => Err(format!("the running kernel is {release}")),
    }
}

/// The server's own figures can judge memtrace only if they are themselves
/// those of the load.
fn server_counted_load(console: &Console) -> Outcome {
    let server = console.json("counters")?;
    for endpoint in ENDPOINTS {
        let pointer = format!("/endpoints/{endpoint}/requests");
        expect(&server, &pointer, load::traced_requests(endpoint))?;
    }
    expect(&server, "/connections", load::traced_connections())
}

fn live_equals_report(console: &Console) -> Outcome {
    let live = console.json("live")?;
    let report = console.json("report")?;
    match difference(&live, &report, "") {
        None => Ok(()),
        Some(place) => Err(format!("they differ at {place}")),
    }
}

fn process_counts(report: &Value, server: &Value) -> Outcome {
    let processes = array(report, "/processes")?;
    let [process] = processes.as_slice() else {
        return Err(format!("{} processes instead of 1", processes.len()));
    };
    for field in ["alloc_count", "alloc_bytes", "free_count", "free_bytes"] {
        expect(process, &format!("/{field}"), server_total(server, field)?)?;
    }
    let freed = server_total(server, "free_bytes")?;
    let live = server_total(server, "alloc_bytes")?.saturating_sub(freed);
    expect(process, "/live_bytes", live)
}

fn endpoint_requests(report: &Value, server: &Value) -> Outcome {
    let rows = array(report, "/endpoints")?;
    if rows.len() != ENDPOINTS.len() {
        let routes: Vec<_> = rows.iter().map(|row| row["route"].to_string()).collect();
        return Err(format!(
            "{} endpoints instead of 3: {}",
            rows.len(),
            routes.join(", ")
        ));
    }
    for_each_endpoint(report, server, |row, own| {
        let requests = number(own, "/requests")?;
        expect(row, "/requests", requests)?;
        expect(row, "/observed", requests)?;
        expect(row, "/status/200", requests)?;
        match row["method"].as_str() {
            Some("GET") => Ok(()),
            _ => Err(format!("the method is {}", row["method"])),
        }
    })
}

fn endpoint_allocations(report: &Value, server: &Value) -> Outcome {
    for_each_endpoint(report, server, |row, own| {
        expect(row, "/alloc_bytes/total", number(own, "/alloc_bytes")?)?;
        expect(row, "/alloc_count/total", number(own, "/alloc_count")?)
    })
}

/// `/swap` is left out: its blocks live until the next such request, so whether
/// one outlives its request by the retention time is a matter of pace.
fn retained(report: &Value, server: &Value) -> Outcome {
    for endpoint in ["alloc", "keep"] {
        let own = part(server, &format!("/endpoints/{endpoint}"))?;
        let kept = number(own, "/alloc_bytes")?.saturating_sub(number(own, "/free_bytes")?);
        expect(
            endpoint_row(report, endpoint)?,
            "/retained_bytes/total",
            kept,
        )
        .map_err(|reason| format!("/{endpoint}: {reason}"))?;
    }
    Ok(())
}

fn unattributed(report: &Value, server: &Value) -> Outcome {
    for field in ["alloc_bytes", "alloc_count"] {
        let own = number(server, &format!("/endpoints/{CONNECTION}/{field}"))?;
        expect(report, &format!("/unattributed/{field}"), own)?;
    }
    Ok(())
}

fn connections(report: &Value, server: &Value) -> Outcome {
    let accepted = number(server, "/connections")?;
    expect(report, "/connections/accepted", accepted)?;
    expect(report, "/connections/closed", accepted)?;
    expect(report, "/connections/open_at_end", 0)
}

fn for_each_endpoint(
    report: &Value,
    server: &Value,
    compare: impl Fn(&Value, &Value) -> Outcome,
) -> Outcome {
    for endpoint in ENDPOINTS {
        let own = part(server, &format!("/endpoints/{endpoint}"))?;
        compare(endpoint_row(report, endpoint)?, own)
            .map_err(|reason| format!("/{endpoint}: {reason}"))?;
    }
    Ok(())
}

/// The one row of the endpoint, whatever the number in its path is folded to.
fn endpoint_row<'v>(report: &'v Value, endpoint: &str) -> Result<&'v Value, String> {
    let prefix = format!("/{endpoint}/");
    let is_row = |row: &&Value| {
        row["route"]
            .as_str()
            .is_some_and(|route| route.starts_with(&prefix))
    };
    let rows: Vec<_> = array(report, "/endpoints")?.iter().filter(is_row).collect();
    match rows.as_slice() {
        [row] => Ok(row),
        _ => Err(format!(
            "{} rows of routes that start with {prefix}",
            rows.len()
        )),
    }
}

fn server_total(server: &Value, field: &str) -> Result<u64, String> {
    let of = |endpoint: &&str| number(server, &format!("/endpoints/{endpoint}/{field}"));
    ENDPOINTS.iter().chain([&CONNECTION]).map(of).sum()
}

fn part<'v>(value: &'v Value, pointer: &str) -> Result<&'v Value, String> {
    value
        .pointer(pointer)
        .ok_or_else(|| format!("there is no {pointer}"))
}

fn array<'v>(value: &'v Value, pointer: &str) -> Result<&'v Vec<Value>, String> {
    part(value, pointer)?
        .as_array()
        .ok_or_else(|| format!("{pointer} is no list"))
}

fn number(value: &Value, pointer: &str) -> Result<u64, String> {
    let found = part(value, pointer)?;
    found
        .as_u64()
        .ok_or_else(|| format!("{pointer} is {found}, not a count"))
}

fn expect(value: &Value, pointer: &str, expected: u64) -> Outcome {
    let found = number(value, pointer)?;
    if found == expected {
        Ok(())
    } else {
        Err(format!("{pointer} is {found} instead of {expected}"))
    }
}

/// The first place where two documents differ.
fn difference(left: &Value, right: &Value, place: &str) -> Option<String> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) if left.keys().eq(right.keys()) => left
            .iter()
            .find_map(|(key, value)| difference(value, &right[key], &format!("{place}/{key}"))),
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(i, (left, right))| difference(left, right, &format!("{place}/{i}"))),
        _ if left == right => None,
        _ => Some(if place.is_empty() {
            "the top".to_owned()
        } else {
            place.to_owned()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What a server that allocates one block per request would have counted.
    fn server() -> Value {
        let endpoint = |requests: u64, frees: bool| {
            let freed = if frees { requests } else { 0 };
            json!({"requests": requests, "alloc_count": requests, "alloc_bytes": 10 * requests,
                   "free_count": freed, "free_bytes": 10 * freed})
        };
        let [alloc, keep, swap] = ENDPOINTS.map(load::traced_requests);
        json!({"connections": load::traced_connections(), "endpoints": {
            "alloc": endpoint(alloc, true), "keep": endpoint(keep, false),
            "swap": endpoint(swap, true), "connection": endpoint(load::traced_connections(), true)}})
    }

    /// The report that agrees with it.
    fn report() -> Value {
        let [alloc, keep, swap] = ENDPOINTS.map(load::traced_requests);
        let row = |route: &str, requests: u64, retained: u64| {
            json!({"protocol": "http/1.1", "method": "GET", "route": route,
                   "requests": requests, "observed": requests, "status": {"200": requests},
                   "alloc_bytes": {"total": 10 * requests}, "alloc_count": {"total": requests},
                   "retained_bytes": {"total": retained}})
        };
        let connections = load::traced_connections();
        let all = alloc + keep + swap + connections;
        json!({"capture": {"lost": {"total": 0}},
               "processes": [{"alloc_count": all, "alloc_bytes": 10 * all,
                              "free_count": all - keep, "free_bytes": 10 * (all - keep),
                              "live_bytes": 10 * keep}],
               "endpoints": [row("/alloc/{id}", alloc, 0), row("/keep/{id}", keep, 10 * keep),
                             row("/swap/{id}", swap, 10)],
               "connections": {"accepted": connections, "closed": connections, "open_at_end": 0},
               "unattributed": {"alloc_bytes": 10 * connections, "alloc_count": connections}})
    }

    fn console(report: &Value) -> String {
        let step = |name: &str, text: &str| format!("== begin {name}\n{text}\n\n== end {name} 0\n");
        let mut console = String::from("SeaBIOS \u{1b}[2J\n") + &step("kernel", "6.1.0-56-cloud");
        for name in [
            "btf",
            "server",
            "doctor",
            "doctor_pid",
            "attach",
            "record",
            load::AFTER.name,
            "table",
        ] {
            console += &step(name, "some words");
        }
        for load in &load::TRACED {
            console += &step(load.name, "requests");
        }
        console += &step("counters", &server().to_string());
        console += &step("live", &format!("{report:#}"));
        console + &step("report", &report.to_string())
    }

    fn failures(console: &str) -> Vec<Check> {
        let mut checks = judge(console, "6.1", &Ended::PowerOff);
        checks.retain(|check| check.outcome.is_err());
        checks
    }

    #[test]
    fn an_exact_report_passes_everything() {
        let failures = failures(&console(&report()));
        assert!(failures.is_empty(), "{failures:?}");
    }

    #[test]
    fn one_unit_off_anywhere_fails() {
        let judged = [
            "/capture/lost/total",
            "/processes/0/alloc_count",
            "/processes/0/alloc_bytes",
            "/processes/0/free_count",
            "/processes/0/free_bytes",
            "/processes/0/live_bytes",
            "/endpoints/0/requests",
            "/endpoints/0/observed",
            "/endpoints/0/retained_bytes/total",
            "/endpoints/1/status/200",
            "/endpoints/1/alloc_bytes/total",
            "/endpoints/1/retained_bytes/total",
            "/endpoints/2/alloc_count/total",
            "/connections/accepted",
            "/connections/closed",
            "/connections/open_at_end",
            "/unattributed/alloc_bytes",
            "/unattributed/alloc_count",
        ];
        for pointer in judged {
            let mut report = report();
            let value = report.pointer_mut(pointer).unwrap();
            *value = json!(value.as_u64().unwrap() + 1);
            let failures = failures(&console(&report));
            assert_eq!(failures.len(), 1, "{pointer}: {failures:?}");
        }
    }

    #[test]
    fn a_guest_that_stops_early_fails_what_it_never_did() {
        let whole = console(&report());
        let (cut, _) = whole.split_once("== end record").unwrap();
        let failures = failures(cut);
        assert!(
            failures
                .iter()
                .any(|check| check.name == "memtrace ends when told to")
        );
        assert!(failures.iter().any(|check| check.name == "nothing is lost"));
        assert!(
            judge("", "6.1", &Ended::PowerOff)
                .iter()
                .filter(|c| c.outcome.is_err())
                .count()
                > 15
        );
    }

    #[test]
    fn a_failed_step_shows_its_last_line() {
        let console = "== begin doctor\nall well\nno BTF\n\n== end doctor 3\n";
        let checks = judge(
            console,
            "6.1",
            &Ended::TimeLimit(std::time::Duration::from_secs(9)),
        );
        let of = |name| checks.iter().find(|check| check.name == name).unwrap();
        let reason = of("doctor succeeds").outcome.as_ref().unwrap_err();
        assert!(
            reason.contains("status 3") && reason.ends_with("no BTF"),
            "{reason}"
        );
        assert!(of("the machine switches itself off").outcome.is_err());
    }

    #[test]
    fn another_kernel_or_report_is_told_apart() {
        let console = console(&report());
        let mut wrong = judge(&console, "6.12", &Ended::PowerOff);
        assert!(wrong.swap_remove(0).outcome.is_err());
        let other = console.replacen("/keep/{id}", "/keep/{n}", 1);
        let failures = failures(&other);
        assert_eq!(failures.len(), 1);
        assert_eq!(
            failures[0].outcome,
            Err("they differ at /endpoints/1/route".into())
        );
    }
}
