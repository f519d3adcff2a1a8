// Sizes often come from untrusted documents. These sums stop at the largest number instead of trapping or wrapping around.

extension UInt64 {
    package func saturatingAdd(_ other: UInt64) -> UInt64 {
        let (sum, isOver) = addingReportingOverflow(other)
        return isOver ? .max : sum
    }
}

extension Sequence<UInt64> {
    package var saturatingSum: UInt64 { reduce(0) { $0.saturatingAdd($1) } }
}
