/// Sets of small numbers, each stored once and named by an index, so that many objects with the same keepers cost four bytes each.
struct KeeperSets {
    /// The members of each set, ascending. The first one is the empty set.
    private(set) var members: [[UInt32]] = [[]]
    private var indices: [[UInt32]: UInt32] = [[]: 0]
    private var unions: [Pair: UInt32] = [:]

    private struct Pair: Hashable {
        var first: UInt32
        var second: UInt32
    }

    static let empty: UInt32 = 0

    /// The set with one more member.
    mutating func adding(_ member: UInt32, to set: UInt32) -> UInt32 { union(set, index(of: [member])) }

    mutating func union(_ left: UInt32, _ right: UInt32) -> UInt32 {
        if left == right || right == Self.empty { return left }
        if left == Self.empty { return right }
        let pair = Pair(first: min(left, right), second: max(left, right))
        if let known = unions[pair] { return known }
        let result = index(of: Self.merge(members[Int(left)], members[Int(right)]))
        unions[pair] = result
        return result
    }

    private mutating func index(of set: [UInt32]) -> UInt32 {
        if let known = indices[set] { return known }
        let index = UInt32(members.count)
        members.append(set)
        indices[set] = index
        return index
    }

    private static func merge(_ left: [UInt32], _ right: [UInt32]) -> [UInt32] {
        var result: [UInt32] = []
        result.reserveCapacity(left.count + right.count)
        var (at, to) = (0, 0)
        while at < left.count, to < right.count {
            if left[at] < right[to] {
                result.append(left[at])
                at += 1
            } else {
                if left[at] == right[to] { at += 1 }
                result.append(right[to])
                to += 1
            }
        }
        return result + left[at...] + right[to...]
    }
}
