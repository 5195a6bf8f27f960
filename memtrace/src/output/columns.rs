//! The columns of an endpoint table, for print and for the live view.
//!
//! In: endpoints and a width. Out: which columns fit, how wide, and the text
//! of their cells. It draws nothing.

use crate::output::sort::Sort;
use crate::output::text::{
    at_least, bytes, bytes_mean, count, count_mean, duration_mean, percent, width,
};
use crate::report::{Distribution, Endpoint};

/// Spaces between columns.
pub const GAP: usize = 2;

/// A column gives way when it would leave less than this to the names.
const NAME_COLUMNS_MIN: usize = 20;

/// The least important columns give way already to names of up to this
/// length: a route that can be read is worth more than another figure.
const NAME_COLUMNS_GOOD: usize = 60;

/// A figure of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Requests.
    Requests,
    /// Bytes allocated by a request, mean.
    AllocMean,
    /// Bytes allocated by a request, 99th percentile.
    AllocP99,
    /// Allocations of a request, mean.
    CountMean,
    /// Bytes retained by a request, mean.
    RetainedMean,
    /// Most bytes held by a request, 99th percentile.
    PeakP99,
    /// Duration of a request, mean.
    DurationMean,
    /// Bytes allocated in total.
    AllocTotal,
    /// Part of all allocated bytes.
    Share,
}

impl Column {
    /// From left to right.
    pub const ALL: [Column; 9] = [
        Column::Requests,
        Column::AllocMean,
        Column::AllocP99,
        Column::CountMean,
        Column::RetainedMean,
        Column::PeakP99,
        Column::DurationMean,
        Column::AllocTotal,
        Column::Share,
    ];

    /// What gives way first on a narrow terminal.
    const EXPENDABLE: [Column; 9] = [
        Column::DurationMean,
        Column::CountMean,
        Column::AllocTotal,
        Column::AllocP99,
        Column::PeakP99,
        Column::Share,
        Column::Requests,
        Column::RetainedMean,
        Column::AllocMean,
    ];

    /// Two lines: the quantity, and which figure of it.
    pub const fn heading(self) -> [&'static str; 2] {
        match self {
            Column::Requests => ["", "REQUESTS"],
            Column::AllocMean => ["ALLOC/REQ", "MEAN"],
            Column::AllocP99 => ["ALLOC/REQ", "P99"],
            Column::CountMean => ["ALLOCS/REQ", "MEAN"],
            Column::RetainedMean => ["RETAINED", "MEAN"],
            Column::PeakP99 => ["PEAK", "P99"],
            Column::DurationMean => ["TIME/REQ", "MEAN"],
            Column::AllocTotal => ["ALLOC", "TOTAL"],
            Column::Share => ["", "SHARE"],
        }
    }

    /// The order that this column shows.
    pub const fn sort(self) -> Sort {
        match self {
            Column::Requests => Sort::Requests,
            Column::AllocMean => Sort::Mean,
            Column::AllocP99 => Sort::P99,
            Column::CountMean => Sort::Count,
            Column::RetainedMean => Sort::Retained,
            Column::PeakP99 => Sort::Peak,
            Column::DurationMean => Sort::Duration,
            Column::AllocTotal | Column::Share => Sort::Bytes,
        }
    }

    /// An endpoint's figure.
    pub fn cell(self, endpoint: &Endpoint) -> String {
        let shown = match self {
            Column::Requests => count(endpoint.requests),
            Column::AllocMean => mean(&endpoint.alloc_bytes, bytes_mean),
            Column::AllocP99 => bytes(endpoint.alloc_bytes.p99),
            Column::CountMean => mean(&endpoint.alloc_count, count_mean),
            Column::RetainedMean => mean(&endpoint.retained_bytes, bytes_mean),
            Column::PeakP99 => bytes(endpoint.peak_bytes.p99),
            Column::DurationMean => duration_mean(endpoint.duration_ns.mean),
            Column::AllocTotal => bytes(endpoint.alloc_bytes.total),
            Column::Share => percent(endpoint.share_of_alloc),
        };
        at_least(shown, self.field(), &endpoint.incomplete)
    }

    /// The field of the report that it shows.
    const fn field(self) -> &'static str {
        match self {
            Column::Requests => "requests",
            Column::AllocMean | Column::AllocP99 | Column::AllocTotal => "alloc_bytes",
            Column::CountMean => "alloc_count",
            Column::RetainedMean => "retained_bytes",
            Column::PeakP99 => "peak_bytes",
            Column::DurationMean => "duration_ns",
            Column::Share => "share_of_alloc",
        }
    }
}

/// A mean, with how far off it may be if it is an estimate.
fn mean(distribution: &Distribution, format: fn(f64) -> String) -> String {
    let shown = format(distribution.mean);
    match distribution.ci95 {
        Some([low, high]) if distribution.mean > 0.0 => {
            let half = (high - low) / 2.0 / distribution.mean;
            format!("{shown} ±{:.0}%", half * 100.0)
        }
        Some(_) | None => shown,
    }
}

/// Which columns are shown, and how wide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// For the names, which come first.
    pub name_width: usize,
    /// The figures, from left to right, each with its width.
    pub columns: Vec<(Column, usize)>,
}

impl Layout {
    /// As many columns as fit beside names that are `longest` at most; the
    /// column of the order stays to the last.
    pub fn fit(endpoints: &[&Endpoint], sort: Sort, longest: usize, width_max: usize) -> Layout {
        let mut columns: Vec<(Column, usize)> = Column::ALL
            .into_iter()
            .map(|column| (column, needed(column, endpoints)))
            .collect();
        for column in Column::EXPENDABLE {
            let wanted = match column {
                Column::DurationMean | Column::CountMean => longest.min(NAME_COLUMNS_GOOD),
                Column::Requests
                | Column::AllocMean
                | Column::AllocP99
                | Column::RetainedMean
                | Column::PeakP99
                | Column::AllocTotal
                | Column::Share => 0,
            };
            if used(&columns) + wanted.max(NAME_COLUMNS_MIN) <= width_max {
                continue;
            }
            let shows_order = column.sort() == sort && column != Column::AllocTotal;
            if !shows_order {
                columns.retain(|(kept, _)| *kept != column);
            }
        }
        let left = width_max.saturating_sub(used(&columns));
        Layout {
            name_width: left.clamp(1, longest.max(NAME_COLUMNS_MIN)),
            columns,
        }
    }

    /// The same with all the room that is left given to the names.
    pub fn stretched(self, width_max: usize) -> Layout {
        let left = width_max.saturating_sub(used(&self.columns));
        Layout {
            name_width: left.max(self.name_width),
            columns: self.columns,
        }
    }
}

fn needed(column: Column, endpoints: &[&Endpoint]) -> usize {
    let heading = column.heading().into_iter().map(width);
    let cells = endpoints.iter().map(|e| width(&column.cell(e)));
    heading.chain(cells).max().unwrap_or(0)
}

fn used(columns: &[(Column, usize)]) -> usize {
    columns.iter().map(|(_, width)| width + GAP).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn fit(sort: Sort, width: usize) -> Layout {
        let report = sample::report();
        let endpoints: Vec<&Endpoint> = report.endpoints.iter().collect();
        Layout::fit(&endpoints, sort, 18, width)
    }

    #[test]
    fn a_wide_terminal_has_every_column_and_80_have_the_important_ones() {
        let wide = fit(Sort::Bytes, 120);
        assert_eq!(wide.columns.len(), Column::ALL.len());
        let narrow: Vec<Column> = fit(Sort::Bytes, 80)
            .columns
            .iter()
            .map(|(column, _)| *column)
            .collect();
        assert_eq!(
            narrow,
            [
                Column::Requests,
                Column::AllocMean,
                Column::AllocP99,
                Column::RetainedMean,
                Column::PeakP99,
                Column::Share
            ]
        );
    }

    #[test]
    fn the_column_of_the_order_stays_and_the_width_is_kept() {
        for width in [32, 40, 60, 80, 100, 200] {
            for column in Column::ALL {
                let layout = fit(column.sort(), width);
                assert!(layout.name_width + used(&layout.columns) <= width);
                assert!(
                    layout
                        .columns
                        .iter()
                        .any(|(shown, _)| shown.sort() == column.sort()),
                    "{column:?} at {width}"
                );
            }
        }
        // No terminal is too small to lay something out for.
        assert_eq!(fit(Sort::Name, 0).name_width, 1);
    }

    #[test]
    fn an_estimate_shows_how_far_off_it_may_be() {
        let mut endpoint = sample::endpoint("GET", "/", 10, 1_000);
        endpoint.alloc_bytes.ci95 = Some([950.0, 1_050.0]);
        assert_eq!(Column::AllocMean.cell(&endpoint), "1000 B ±5%");
    }
}
