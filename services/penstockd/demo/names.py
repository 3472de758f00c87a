"""Names, places and phone ranges of the countries in the demo company.

Written out by hand for this purpose. Names that need it have an ASCII form, for e-mail
addresses. Phone numbers are from the ranges that regulators reserve for fiction, or from the
unassigned country code +999 where there is no such range.
"""

# Names in other scripts contain letters that look like Latin ones, on purpose.
# ruff: noqa: RUF001

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Country:
    """The parts from which people and companies of one country are made up.

    ``given`` and ``family`` are "name=ascii" or just the name; ``places`` "city|region|postal
    code", where "#" stands for a digit; ``streets`` have "#" for the house number. ``weight`` is
    its share of 256 customers. Names and places are separated by blanks; "_" is a blank within.
    """

    code: str
    weight: int
    language: str
    currency: str
    phone: str
    given: str
    family: str
    places: str
    streets: str
    companies: str
    family_first: bool = False


COUNTRIES = (
    Country(
        "US", 46, "en", "USD", "+1 202-555-01##",
        "Mary James Linda Robert Patricia Michael Aisha David Grace Daniel",
        "Smith Johnson O'Neill Brown García=Garcia Miller Nguyen Davis Lopez Clark",
        "Springfield|IL|627## Portland|OR|972## Austin|TX|787## Boston|MA|021## Denver|CO|802##",
        "# Main St;# Oak Avenue;# Elm Street;# N 2nd St, Suite 5;# Lakeview Dr",
        "{} & Sons, Inc.;{} Hardware;{} \"Quality\" Foods LLC;{} Logistics;The {} Company",
    ),
    Country(
        "GB", 22, "en", "GBP", "+44 20 7946 0###",
        "Olivia George Amelia Harry Isla Arthur Siân=Sian Alfie Poppy Oscar",
        "Jones Taylor Williams Evans Wilson Macdonald Hughes Wright Walker Ó-Briain=OBriain",
        "London||SW#A_1AA Leeds|West_Yorkshire|LS#_4DY Cardiff||CF#_3AT Glasgow||G#_1XQ",
        "# High Street;# Station Road;Flat 2, # Church Lane;# Mill Lane;# Victoria Road",
        "{} & Co Ltd;{} Bros., Grocers;{} Engineering plc;{} Trading;{}'s Bakery",
    ),
    Country(
        "DE", 26, "de", "EUR", "+49 30 23125 ###",
        "Jürgen=Juergen Anna Björn=Bjoern Sabine Käthe=Kaethe Lukas Ursula Felix Zoë=Zoe Karl",
        "Müller=Mueller Schmidt Weiß=Weiss Schäfer=Schaefer Groß=Gross Vogel König=Koenig Beck",
        "Berlin||101## München|Bayern|803## Köln|Nordrhein-Westfalen|506## Görlitz|Sachsen|028##",
        "Hauptstraße #;Am Bahnhof #;Gartenweg #;Schloßallee #;Straße des 17. Juni #",
        "{} GmbH;{} & Söhne KG;Bäckerei {};{} Maschinenbau AG;\"{}\" Handels-GmbH & Co. KG",
    ),
    Country(
        "FR", 22, "fr", "EUR", "+33 1 99 00 ## ##",
        "Zoé=Zoe Jérôme=Jerome Chloé=Chloe François=Francois Hélène=Helene Noël=Noel Inès=Ines Luc",
        "Lefèvre=Lefevre Martin Dubois Bérenger=Berenger Gauthier Moreau Hébert=Hebert Roux",
        "Paris|Île-de-France|750## Lyon||690## Besançon||250## Nîmes|Occitanie|300##",
        "#, rue de l'Église;#, avenue Foch;# bis, quai Voltaire;#, place d'Armes;#, chemin Vert",
        "{} et Fils;Boulangerie {};Société {} S.A.;Les Caves {};{} Développement SARL",
    ),
    Country(
        "ES", 16, "es", "EUR", "+999 34 555 0###",
        "José=Jose Lucía=Lucia Íñigo=Inigo Begoña=Begona Ángel=Angel Sofía=Sofia Raúl=Raul Marta",
        "Muñoz=Munoz Fernández=Fernandez Ibáñez=Ibanez Núñez=Nunez Peña=Pena Castro Gil Sáez=Saez",
        "Madrid||280## Cádiz|Andalucía|110## A_Coruña|Galicia|150## León||240##",
        "Calle Mayor, #;Avda. de la Constitución #;Plaza España, # - 2.º B;Calle del Río, #",
        "{} e Hijos, S.L.;Panadería {};Grupo {} S.A.;Construcciones {};Librería {}",
    ),
    Country(
        "PL", 14, "pl", "PLN", "+999 48 555 0###",
        "Łukasz=Lukasz Agnieszka Żaneta=Zaneta Wojciech Małgorzata=Malgorzata Paweł=Pawel Zofia",
        "Wiśniewska=Wisniewska Wójcik=Wojcik Kowalczyk Zając=Zajac Dąbrowska=Dabrowska Mazur",
        "Łódź||90-### Kraków|małopolskie|30-### Gdańsk||80-### Białystok||15-###",
        "ul. Kościuszki #;ul. Długa #/4;al. Jana Pawła II #;pl. Wolności #",
        "{} Sp. z o.o.;Piekarnia {};Zakłady {} S.A.;{} i Wspólnicy;Hurtownia {}",
    ),
    Country(
        "SE", 8, "sv", "SEK", "+46 8 465 004 ##",
        "Åsa=Asa Göran=Goran Björn=Bjorn Märta=Marta Sören=Soren Linnéa=Linnea Örjan=Orjan",
        "Åkesson=Akesson Öberg=Oberg Lindström=Lindstrom Sjögren=Sjogren Håkansson=Hakansson",
        "Malmö||21#_## Göteborg||41#_## Örebro||70#_## Umeå||90#_##",
        "Storgatan #;Ängsvägen #;Östra Hamngatan #;Kungsgatan # A",
        "{} AB;{}s Fisk & Skaldjur;Bröderna {} HB;{} Bygg",
    ),
    Country(
        "VN", 6, "vi", "VND", "+999 84 555 0###",
        "Hương=Huong Dũng=Dung Thảo=Thao Quốc=Quoc Ngọc=Ngoc Đức=Duc Yến=Yen",
        "Nguyễn=Nguyen Trần=Tran Phạm=Pham Đặng=Dang Võ=Vo Bùi=Bui",
        "Hà_Nội||100### Đà_Nẵng||550### Huế||530###",
        "# Lê Lợi;# Trần Hưng Đạo;# Điện Biên Phủ",
        "Công ty {};{} & Con;Nhà hàng {}",
        family_first=True,
    ),
    Country(
        "GR", 12, "el", "EUR", "+999 30 555 0###",
        "Ελένη=Eleni Γιώργος=Giorgos Μαρία=Maria Νίκος=Nikos Σοφία=Sofia Κώστας=Kostas",
        "Παπαδοπούλου=Papadopoulou Οικονόμου=Oikonomou Αγγελίδης=Angelidis Βλάχος=Vlachos",
        "Αθήνα|Αττική|10#_## Θεσσαλονίκη||54#_## Πάτρα||26#_##",
        "Λεωφόρος Αλεξάνδρας #;Ερμού #;Αγίου Δημητρίου #",
        "{} Α.Ε.;Αφοί {};Φούρνος «{}»;{} & Σία Ο.Ε.",
    ),
    Country(
        "UA", 14, "uk", "UAH", "+999 38 555 0###",
        "Олена=Olena Тарас=Taras Юлія=Yuliia Богдан=Bohdan Оксана=Oksana Андрій=Andrii",
        "Шевченко=Shevchenko Коваленко=Kovalenko Бондар=Bondar Їжак=Yizhak Лисенко=Lysenko",
        "Київ||01### Львів|Львівська|79### Одеса||65###",
        "вул. Хрещатик, #;просп. Свободи, #;вул. Івана Франка, # кв. 3",
        "ТОВ «{}»;{} та сини;Пекарня {};Завод \"{}\"",
    ),
    Country(
        "EG", 12, "ar", "EGP", "+999 20 555 0###",
        "محمد=Mohamed فاطمة=Fatima أحمد=Ahmed مريم=Mariam يوسف=Youssef ليلى=Layla",
        "حسن=Hassan السيد=Elsayed عبد_الله=Abdullah منصور=Mansour إبراهيم=Ibrahim",
        "القاهرة||115## الإسكندرية||215## الجيزة||125##",
        "# شارع التحرير;# شارع النيل;# ميدان طلعت حرب",
        "شركة {} للتجارة;مخبز {};مجموعة {}",
    ),
    Country(
        "IL", 8, "he", "ILS", "+999 97 555 0###",
        "נועה=Noa דוד=David תמר=Tamar יוסף=Yosef שירה=Shira איתי=Itai",
        "כהן=Cohen לוי=Levi מזרחי=Mizrahi פרץ=Peretz ביטון=Biton",
        "תל_אביב||61##### ירושלים||91##### חיפה||31#####",
        "רחוב הרצל #;שדרות רוטשילד #;דרך יפו #",
        "{} ובניו בע\"מ;מאפיית {};קבוצת {}",
    ),
    Country(
        "CN", 16, "zh", "CNY", "+999 86 555 0###",
        "伟=Wei 芳=Fang 秀英=Xiuying 强=Qiang 静=Jing 小龙=Xiaolong 丽=Li",
        "王=Wang 李=Li 张=Zhang 刘=Liu 陈=Chen 欧阳=Ouyang",
        "北京||1000## 上海||2000## 广州|广东|5100## 成都|四川|6100##",
        "中山路#号;人民大道#号;解放街#号3楼",
        "{}贸易有限公司;{}茶庄;{}电子(集团)",
        family_first=True,
    ),
    Country(
        "JP", 14, "ja", "JPY", "+999 81 555 0###",
        "陽菜=Hina 翔太=Shota さくら=Sakura 健=Ken 美咲=Misaki ひろし=Hiroshi",
        "佐藤=Sato 鈴木=Suzuki 髙橋=Takahashi 渡邉=Watanabe 小林=Kobayashi 𠮷田=Yoshida",
        "東京|東京都|100-#### 大阪|大阪府|530-#### 札幌|北海道|060-####",
        "丸の内#丁目;中央区#-2-3;本町#番地",
        "株式会社{};{}商店;有限会社{}製作所",
        family_first=True,
    ),
    Country(
        "KR", 10, "ko", "KRW", "+999 82 555 0###",
        "민준=Minjun 서연=Seoyeon 지우=Jiwoo 하은=Haeun 도윤=Doyun",
        "김=Kim 이=Lee 박=Park 최=Choi 정=Jung 남궁=Namgung",
        "서울||04### 부산||48### 인천||21###",
        "세종대로 #;테헤란로 #길 5;해운대로 #",
        "주식회사 {};{} 전자;{} 베이커리",
        family_first=True,
    ),
    Country(
        "IN", 10, "hi", "INR", "+999 91 555 0###",
        "आरव=Aarav अनन्या=Ananya विवान=Vivaan दीया=Diya रोहन=Rohan",
        "शर्मा=Sharma पटेल=Patel सिंह=Singh गुप्ता=Gupta रेड्डी=Reddy",
        "दिल्ली||1100## मुंबई|महाराष्ट्र|4000## जयपुर|राजस्थान|3020##",
        "# महात्मा गांधी मार्ग;# स्टेशन रोड;प्लॉट #, सेक्टर 4",
        "{} एंड संस;{} ट्रेडर्स प्रा. लि.;{} मिठाई भंडार",
    ),
)  # fmt: skip
