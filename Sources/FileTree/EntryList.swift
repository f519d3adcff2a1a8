public import ComposefsBytes

extension FileTree {
    /// Entries of a tree. It keeps what it needs of the tree.
    public struct EntryList: RandomAccessCollection, Sendable {
        @usableFromInline
        enum Form: Sendable {
            /// The first of entries that are side by side, and their number.
            case range(UInt32, Int)
            case list(LargeArray<UInt32>)
        }

        @usableFromInline let form: Form

        init(_ form: Form) { self.form = form }

        package init(_ entries: some Sequence<EntryID>) {
            var list = LargeArray<UInt32>()
            for entry in entries { list.append(entry.index) }
            form = .list(list)
        }

        @inlinable public var startIndex: Int { 0 }

        @inlinable
        public var endIndex: Int {
            switch form {
            case .range(_, let count): count
            case .list(let list): list.count
            }
        }

        @inlinable
        public subscript(index: Int) -> EntryID {
            switch form {
            case .range(let first, let count):
                precondition(index >= 0 && index < count, "an index outside of a list")
                return EntryID(first + UInt32(index))
            case .list(let list): return EntryID(list[index])
            }
        }
    }
}
