// Sizes are often what a stranger's document says: a sum of them ends at the largest number instead of trapping or starting again from 0.

extension UInt64 {
    package func saturatingAdd(_ other: UInt64) -> UInt64 {
        let (sum, isOver) = addingReportingOverflow(other)
        return isOver ? .max : sum
    }
}

extension Sequence<UInt64> {
    package var saturatingSum: UInt64 { reduce(0) { $0.saturatingAdd($1) } }
}
