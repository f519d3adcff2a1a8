package import ComposefsEROFS
import ComposefsLinuxSystem

/// Answers single requests without a device. For fuzzers.
package final class FuseAnswers: Sendable {
    /// The sizes that `answer` needs, in bytes.
    package static let largestRequest = FuseProtocol.requestBufferSize
    package static let replyBuffer = FuseProtocol.replyHeaderSize + FuseProtocol.maximumRead

    private let fileSystem: ImageFileSystem

    package init(_ image: ErofsImage, objects: some ObjectOpener, opensLazily: Bool) {
        let files = ObjectFiles(objects, ObjectVerifier(requireVerity: false), nil, capacity: 4)
        fileSystem = ImageFileSystem(
            image, files, showsTrusted: true, needsNoOpen: opensLazily, needsNoOpenDirectory: opensLazily
        ) { line in precondition(line.utf8.allSatisfy { $0 >= 0x20 }, "a message of more than one line") }
    }

    /// The reply to a request, in the front of `output`; nil if the kernel expects none.
    package func answer(_ bytes: UnsafeRawBufferPointer, _ output: UnsafeMutableRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard let request = FuseRequest(bytes) else { return nil }
        var reply = FuseReply(output)
        if let asked = FuseInitialization(request) {
            FuseServer.write(&reply, asked, asked.flags.intersection(.wanted))
            return reply.finish(request.unique)
        }
        let space = UnsafeMutableRawBufferPointer(rebasing: output[FuseProtocol.replyHeaderSize...])
        switch fileSystem.handle(request, &reply, space) {
        case .silent: return nil
        case .reply: return reply.finish(request.unique)
        case .error(let error): return reply.finish(request.unique, error: error.rawValue)
        case .content(let object, let offset, let count, let closes):
            defer { if closes { fileSystem.objects.close(request.node) } }
            let error = fileSystem.copy(object, from: offset, count, of: request, &reply, space)
            return reply.finish(request.unique, error: error?.rawValue ?? 0)
        }
    }
}
