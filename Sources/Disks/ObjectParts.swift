import ComposefsEROFS
import ComposefsExt4
import ComposefsHashing

/// A part of an object and its place in an image. All numbers are in bytes.
struct ObjectPart: Sendable {
    var object: ObjectID
    /// The size of the whole object.
    var objectSize: UInt64
    /// The offset in the object; a multiple of 4096.
    var objectOffset: UInt64
    /// The offset in the image; a multiple of 4096.
    var offset: UInt64
    var count: UInt64

    var end: UInt64 { offset + count }
    var isWhole: Bool { objectOffset == 0 && count == objectSize }
}

/// The parts of an image that are objects, in ascending order of their offsets. They follow from the image's plan.
struct ObjectParts: RandomAccessCollection, Sendable {
    enum Source: Sendable {
        case erofs(ErofsPlacements)
        case ext4(Ext4Placements)
        case one(ObjectPart)
        case none
    }

    private let source: Source

    init(_ source: Source) { self.source = source }

    var startIndex: Int { 0 }

    var endIndex: Int {
        switch source {
        case .erofs(let placements): placements.count
        case .ext4(let placements): placements.count
        case .one: 1
        case .none: 0
        }
    }

    subscript(index: Int) -> ObjectPart {
        switch source {
        case .erofs(let placements):
            let it = placements[index]
            return ObjectPart(object: it.object, objectSize: it.byteCount, objectOffset: 0, offset: it.offset, count: it.byteCount)
        case .ext4(let placements):
            let it = placements[index]
            return ObjectPart(
                object: it.object, objectSize: it.objectSize, objectOffset: it.objectOffset, offset: it.imageOffset, count: it.byteCount)
        case .one(let part): return part
        case .none: preconditionFailure("an image without objects")
        }
    }
}
