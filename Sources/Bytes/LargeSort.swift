extension LargeArray {
    /// Sorts a range. What is not on the heap is sorted in runs that fit there, which are merged then.
    ///
    /// - Parameters:
    ///   - range: all elements, if it is nil.
    ///   - isBefore: whether an element is before another. No two elements are equal.
    @inlinable
    public mutating func sort(_ range: Range<Int>? = nil, by isBefore: (Element, Element) -> Bool) {
        let range = range ?? indices
        guard windows != nil else {
            return withMutableElements { elements in
                var part = UnsafeMutableBufferPointer(rebasing: elements[range])
                part.sort(by: isBefore)
            }
        }
        var isSorted = true
        for index in range.dropFirst() where !isBefore(self[index - 1], self[index]) {
            isSorted = false
            break
        }
        guard !isSorted else { return }
        var run = Swift.max(LargeArray.runSize / MemoryLayout<Element>.stride, 1)
        for start in stride(from: range.lowerBound, to: range.upperBound, by: run) {
            let part = start..<Swift.min(start + run, range.upperBound)
            var elements = withElements(part) { Array($0) }
            elements.sort(by: isBefore)
            for (offset, element) in elements.enumerated() { self[start + offset] = element }
        }
        guard run < range.count else { return }
        var other = LargeArray(in: memory)
        while run < range.count {
            other.removeAll()
            for start in stride(from: range.lowerBound, to: range.upperBound, by: 2 * run) {
                let middle = Swift.min(start + run, range.upperBound)
                let end = Swift.min(middle + run, range.upperBound)
                var (left, right) = (start, middle)
                while left < middle || right < end {
                    if right == end || left < middle && !isBefore(self[right], self[left]) {
                        other.append(self[left])
                        left += 1
                    } else {
                        other.append(self[right])
                        right += 1
                    }
                }
            }
            for index in 0..<range.count { self[range.lowerBound + index] = other[index] }
            run *= 2
        }
    }

    /// What is sorted on the heap at a time, in bytes.
    @usableFromInline static var runSize: Int { 1 << 20 }
}
