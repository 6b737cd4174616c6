#include "say.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

int main(void)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    struct sockaddr_in any = { .sin_family = AF_INET };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    struct sockaddr_un local = { .sun_family = AF_UNIX, .sun_path = "none.socket" };
    struct sockaddr_un abstract = { .sun_family = AF_UNIX, .sun_path = "\0name" };
    int tcp = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0), unix_ = socket(AF_UNIX, SOCK_STREAM, 0);
    int udp6 = socket(AF_INET6, SOCK_DGRAM, 0), pair[2];
    struct iovec data = { "x", 1 };
    struct msghdr message = { .msg_name = &v4, .msg_namelen = sizeof(v4), .msg_iov = &data, .msg_iovlen = 1 };
    struct sockaddr_in other = v4;
    other.sin_port = htons(10);
    struct mmsghdr many[2] = { { message, 0 }, { message, 0 } };
    many[1].msg_hdr.msg_name = &other;

    CALL("bind 0.0.0.0:0", SYS_bind, udp, &any, sizeof(any));
    CALL("sendto 127.0.0.1:9", SYS_sendto, udp, "x", 1, 0, &v4, sizeof(v4));
    CALL("sendmsg 127.0.0.1:9", SYS_sendmsg, udp, &message, 0);
    SAY("sendmmsg 127.0.0.1:9 = 0\nsendmmsg 127.0.0.1:10 = 0\n");
    if (syscall(SYS_sendmmsg, udp, many, 2, 0) != 2)
        return 1;
    CALL("connect 127.0.0.1:9", SYS_connect, tcp, &v4, sizeof(v4));
    CALL("connect [::1]:9", SYS_connect, udp6, &v6, sizeof(v6));
    CALL("connect unix:none.socket", SYS_connect, unix_, &local, sizeof(local));
    CALL("bind unix:@name", SYS_bind, unix_, &abstract, sizeof(sa_family_t) + 5);
    CALL("connect", SYS_connect, tcp, (void *)8, sizeof(v4));
    v6.sin6_addr.s6_addr[15] = 0;
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6.sin6_addr);
    udp6 = socket(AF_INET6, SOCK_DGRAM, 0);
    CALL("sendto 127.0.0.1:9", SYS_sendto, udp6, "x", 1, 0, &v6, sizeof(v6));
    CALL("connect 127.0.0.1:9", SYS_connect, udp6, &v6, sizeof(v6));
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
        return 1;
    if (syscall(SYS_sendto, pair[0], "x", 1, 0, 0, 0) != 1) /* no peer: counted, not recorded */
        return 1;
    return 0;
}
