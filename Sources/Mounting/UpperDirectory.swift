internal import ComposefsBytes
internal import ComposefsLinuxSystem

// The root of an overlay shows the upper directory's mode, owner, times and extended attributes, not the image's: the kernel merges
// entries, and the root is the upper directory itself. So a fresh upper directory gets what the image's root has; a later mount leaves it
// alone, since by then it holds what was changed.

/// Says that a directory has been given the attributes of an image's root. Overlayfs shows no attribute of this prefix.
private let rootMark: ByteString = "trusted.overlay.cfsoci"
private let overlayPrefix: ByteString = "trusted.overlay."
/// What overlayfs shows without the first `overlay.`: part of the content.
private let escapedPrefix: ByteString = "trusted.overlay.overlay."

/// Gives an upper directory that was never used the mode, owner, time and extended attributes of the image's root.
///
/// - Parameters:
///   - image: a mount of the image; owners are taken as this mount shows them.
///   - path: the upper directory. It stays as it is if it has an entry, or was the upper directory of an overlay before.
func adoptRoot(of image: borrowing FileDescriptor, as path: ByteString) throws(SystemError) {
    let upper = try FileDescriptor.open(path, [.readOnly, .directory])
    guard try isFresh(upper), try !upper.fileSystemStatus().isReadOnly else { return }
    let root = try image.status()
    try upper.changeOwner(uid: root.uid, gid: root.gid)
    for attribute in try image.extendedAttributes() where !isOverlays(attribute.name) {
        do throws(SystemError) {
            try upper.setExtendedAttribute(attribute.name, attribute.value)
        } catch {
            // As overlayfs does when it copies a directory up: not every file system takes every attribute.
            guard error.errno == .notSupported || error.errno == .notPermitted else { throw error }
        }
    }
    // After the owner, whose change clears bits, and the access control list, which changes those of the group.
    try upper.changeMode(root.permissions)
    try upper.setTime(seconds: root.mtimeSeconds, nanoseconds: root.mtimeNanoseconds)
    // Without this attribute the next mount gives it the same again, should nothing be in it.
    try? upper.setExtendedAttribute(rootMark, "1")
}

private func isFresh(_ upper: borrowing FileDescriptor) throws(SystemError) -> Bool {
    guard try upper.entries().isEmpty else { return false }
    return try !upper.extendedAttributes().contains { $0.name.hasPrefix(overlayPrefix) }
}

/// Whether an attribute is overlayfs's own.
private func isOverlays(_ name: ByteString) -> Bool { name.hasPrefix(overlayPrefix) && !name.hasPrefix(escapedPrefix) }
