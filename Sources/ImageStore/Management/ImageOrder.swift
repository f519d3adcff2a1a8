import ComposefsBytes
import ComposefsFileTree

/// An order of images in a list. Times and sizes begin with the newest and largest; what is unknown comes last; equal ones are ordered by name.
public enum ImageOrder: String, Sendable, CaseIterable {
    case name, repository, tag, id, created, pulled
    case lastUsed = "last-used"
    case size
    case diskSize = "disk-size"

    /// - Parameter diskSize: the space of an image's objects; nil if it is unknown.
    public func sort(_ records: [ImageRecord], diskSize: (ImageRecord) -> UInt64?) -> [ImageRecord] {
        switch self {
        case .name: Self.sort(records, by: { $0.name }, descending: false)
        case .repository: Self.sort(records, by: { $0.repositoryName }, descending: false)
        case .tag: Self.sort(records, by: { $0.tagName }, descending: false)
        case .id: Self.sort(records, by: { $0.imageID }, descending: false)
        case .created: Self.sort(records, by: { $0.createdTime }, descending: true)
        case .pulled: Self.sort(records, by: { $0.pulled }, descending: true)
        case .lastUsed: Self.sort(records, by: { $0.lastUsed }, descending: true)
        case .size: Self.sort(records, by: { $0.size }, descending: true)
        case .diskSize: Self.sort(records, by: diskSize, descending: true)
        }
    }

    private static func sort<Key: Comparable>(
        _ records: [ImageRecord], by key: (ImageRecord) -> Key?, descending: Bool
    ) -> [ImageRecord] {
        let keyed = records.map { (key: key($0), record: $0) }
        let sorted = keyed.sorted { left, right in
            switch (left.key, right.key) {
            case (nil, nil): left.record.name < right.record.name
            case (nil, _): false
            case (_, nil): true
            case (let first?, let second?):
                first == second ? left.record.name < right.record.name : (first < second) != descending
            }
        }
        return sorted.map(\.record)
    }
}
