"""A GStreamer RTSP server for the tests, run by the system's Python: PORT FILE.avi [USER PASSWORD].

Serves the file's JPEG images at /strip in its own time, from its beginning for each client, and
ends the stream after the last one.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")

from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main(port: str, path: str, *login: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    # JPEG over RTP leaves the Huffman tables out: they must be the standard ones.
    decoded = f'filesrc location="{path}" ! avidemux ! jpegdec'
    factory.set_launch(f"( {decoded} ! jpegenc quality=95 ! rtpjpegpay name=pay0 pt=26 )")
    if login:
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "line")
        auth = GstRtspServer.RTSPAuth()
        basic = GstRtspServer.RTSPAuth.make_basic(*login)
        auth.add_basic(basic, token)
        server.set_auth(auth)
        access = GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS
        construct = GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("line", access, True)
        permissions.add_permission_for_role("line", construct, True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/strip", factory)
    if not server.attach(None):
        sys.exit("cannot listen")
    print("ready", flush=True)
    GLib.MainLoop().run()


main(*sys.argv[1:])
